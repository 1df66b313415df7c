"""Several processes that train one model, started by ``torchrun``: who they are, and how gradients become one.

Every rank computes the gradient of the one global loss with respect to what it holds, so gradients are summed, not
averaged. Without FSDP each rank holds all parameters and the sums are made here, in one message; with it (FSDP2)
parameters, gradients and the optimizer's state are divided over the ranks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn

from nunbit.errors import UsageError

_CPU = torch.device("cpu")
_PATIENCE = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class World:
    """This process among those that train together.

    Attributes:
        rank: Its number, from 0.
        size: How many there are.
        device: Where it computes.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = _CPU

    @property
    def leads(self) -> bool:
        """Tell whether this is the one process that writes files and talks."""
        return self.rank == 0

    def wait(self) -> None:
        """Let all processes come here before any goes on."""
        if self.size > 1:
            distributed.barrier()

    def agree(self, number: int) -> bool:
        """Tell whether all processes came with the same number; a collective call."""
        if self.size == 1:
            return True
        ends = torch.tensor([number, -number], device=self.device)
        distributed.all_reduce(ends, distributed.ReduceOp.MAX)
        return bool(ends[0] == -ends[1])

    def sum(self, value: float) -> float:
        """The sum of a number over all processes; a collective call."""
        if self.size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        distributed.all_reduce(total)
        return float(total)


@contextmanager
def join_world(device: str | None) -> Iterator[World]:
    """Join the processes that ``torchrun`` started, if it started this one; leave them at the end.

    Args:
        device: ``cpu`` or ``cuda``; None: ``cuda`` when there is one. Each process takes the one of its local rank.

    Raises:
        UsageError: The device is not there.
    """
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if kind.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError("there is no cuda device that torch can use", hint="device: cpu works everywhere")
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if kind == "cuda" and size > 1:
        kind = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    try:
        place = torch.device(kind)
    except RuntimeError as error:
        raise UsageError(f"there is no device {kind!r}", hint="cpu or cuda") from error
    if place.type == "cuda":
        if (place.index or 0) >= torch.cuda.device_count():
            message = f"process {place.index} has no device of its own: there are {torch.cuda.device_count()}"
            raise UsageError(message, hint="start as many processes as there are devices, or set device: cpu")
        torch.cuda.set_device(place)
    if size == 1:
        yield World(device=place)
        return
    # The others wait while the first one measures or lets a locked tower look at everything.
    distributed.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        world = World(distributed.get_rank(), size, place)
        yield world
        world.wait()  # who leaves before the others takes the connections with it
    finally:
        distributed.destroy_process_group()


def sum_gradients(parameters: Iterable[nn.Parameter], world: World) -> None:
    """Replace gradients by their sums over the ranks; those that FSDP divided are sums already.

    With several ranks a parameter that a rank's loss did not use counts as 0 there.
    """
    if world.size == 1:
        return
    plain = [parameter for parameter in parameters if not is_divided(parameter)]
    for parameter in plain:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in plain if parameter.grad is not None]
    if not gradients:
        return
    flat = torch.cat([gradient.reshape(-1).float() for gradient in gradients])
    distributed.all_reduce(flat)
    totals = torch.split(flat, [gradient.numel() for gradient in gradients])
    for gradient, total in zip(gradients, totals, strict=True):
        gradient.copy_(total.view_as(gradient))


def divide(module: nn.Module, blocks: Sequence[nn.Module], methods: dict[nn.Module, Sequence[str]]) -> None:
    """Divide a module's parameters over the ranks (FSDP2).

    Args:
        module: Changed in place. Its scalars stay whole: they are used outside of any forward pass.
        blocks: Parts that are gathered one at a time.
        methods: Parts that are called by other names than ``forward``, with those names.
    """
    from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

    for block in blocks:
        fully_shard(block)
    for part, names in methods.items():
        scalars = {parameter for parameter in part.parameters() if parameter.ndim == 0}
        fully_shard(part, ignored_params=scalars)
        for name in names:
            register_fsdp_forward_method(part, name)
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)  # gloo has no other


def forget_gathered(module: nn.Module) -> None:
    """Drop parameters that FSDP has put together for a forward pass: weights that changed since must be seen."""
    from torch.distributed.fsdp import FSDPModule

    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def gather_state(module: nn.Module) -> dict[str, Tensor]:
    """All of a divided module's tensors, put together, on the first rank; a collective call."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state: Any = get_model_state_dict(module, options=options)
    return dict(state)


def is_divided(tensor: Tensor) -> bool:
    """Tell whether FSDP has divided a tensor over the ranks."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """A tensor that FSDP has divided, put together on every rank; any other one as it is."""
    gather: Callable[[], Tensor] | None = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def divided_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, divided over the ranks as another one is; as it is where that one is whole, too."""
    if not is_divided(like):
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


def gradient_norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    """The norm of all gradients together, (), whether they are divided or not."""
    gradients = (parameter.grad for parameter in parameters if parameter.grad is not None)
    norms = [whole(torch.linalg.vector_norm(gradient.float())) for gradient in gradients]
    return torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())
