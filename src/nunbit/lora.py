"""Low-rank adapters (LoRA, arXiv 2106.09685): a weight learns a small correction, and stays itself.

``W' = W + alpha / rank * up @ down``,  W (out, in), up (out, rank) = 0, down (rank, in) random

It starts as the model that it is added to. Any matrix can be adapted, whether a linear layer or a convolution holds it
or the module itself; merged, it is a plain weight again and costs nothing.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from nunbit.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig:
    """What is adapted.

    Attributes:
        rank: Width of the correction.
        alpha: Its strength; the factor is ``alpha / rank``.
        targets: Patterns of parameter names, as a shell has them: ``vision_encoder.blocks.*.attention.*.weight``, or
            ``*.blocks.1[01].*`` for the last two blocks of twelve. Only matrices are adapted.
    """

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ("*.blocks.*.attention.*.weight", "*.blocks.*.mlp.*.weight")

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"the rank of an adapter is {self.rank}, expected at least 1")


class LowRank(nn.Module):
    """The correction of one weight.

    Args:
        weight: (out, in, ...), as it is.
        config: Rank and strength.
    """

    def __init__(self, weight: Tensor, config: LoraConfig) -> None:
        super().__init__()
        rows, columns = len(weight), weight[0].numel()
        self.factor = config.alpha / config.rank
        self.down = nn.Parameter(columns**-0.5 * torch.randn(config.rank, columns, device=weight.device))
        self.up = nn.Parameter(torch.zeros(rows, config.rank, device=weight.device))

    def correct(self, x: Tensor) -> Tensor:
        """What the correction adds to a linear layer's output: (..., in) → (..., out)."""
        return self.factor * functional.linear(functional.linear(x, self.down), self.up)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with its correction, of the same shape."""
        device = "cpu" if weight.is_meta else weight.device.type  # of the meta device there are no settings
        with torch.autocast(device, enabled=False):  # the sum would be rounded before it is used
            return weight + self.factor * (self.up @ self.down).view_as(weight)


def add_lora(module: nn.Module, config: LoraConfig) -> list[str]:
    """Freeze a module and adapt those of its weights that the configuration names.

    Args:
        module: Changed in place.
        config: Which weights, and how.

    Returns:
        The names of the adapted weights.

    Raises:
        ConfigError: A pattern fits no matrix; some that would are named.
    """
    matrices = [name for name, weight in module.named_parameters() if weight.ndim >= 2]
    for pattern in config.targets:
        if not fnmatch.filter(matrices, pattern):
            raise ConfigError(f"lora: no weight is called like {pattern!r}", hint=f"there are: {_sample(matrices)}")
    adapted = [name for name in matrices if any(fnmatch.fnmatchcase(name, pattern) for pattern in config.targets)]
    module.requires_grad_(False)
    for name in adapted:
        owner, _, attribute = name.rpartition(".")
        holder = module.get_submodule(owner)
        parametrize.register_parametrization(holder, attribute, LowRank(getattr(holder, attribute), config))
        if isinstance(holder, nn.Linear):
            holder.forward = MethodType(_adapted_forward, holder)  # type: ignore[method-assign]
    return adapted


def _adapted_forward(layer: nn.Linear, x: Tensor) -> Tensor:
    """``x @ W^T + factor * (x @ down^T) @ up^T + bias``: as the layer with the summed weight, which is never made.

    That sum, and its gradient, cost as much as some hundred rows of ``x``, at every step.
    """
    held: Any = layer.parametrizations["weight"]  # type: ignore[index]
    out: Tensor = functional.linear(x, held.original, layer.bias) + held[0].correct(x)
    return out


def merge_lora(module: nn.Module) -> None:
    """Add every correction to its weight for good; names are then as they were before `add_lora`."""
    for holder in list(module.modules()):
        if parametrize.is_parametrized(holder):
            for attribute in list(holder.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(holder, attribute, leave_parametrized=True)
            vars(holder).pop("forward", None)


def merged_parameters(module: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters by the names and with the values that they would have after `merge_lora`.

    Buffers, such as a batch norm's running statistics, are among them.
    """
    found: dict[str, Tensor] = {}
    for path, holder in module.named_modules():
        if "parametrizations" in path.split("."):
            continue
        prefix = f"{path}." if path else ""
        adapted = list(holder.parametrizations) if parametrize.is_parametrized(holder) else []
        own = [*holder.named_parameters(recurse=False), *holder.named_buffers(recurse=False)]
        for name in [*(name for name, _ in own), *adapted]:
            found[prefix + name] = getattr(holder, name).detach().clone()
    return found


def _sample(names: list[str]) -> str:
    return ", ".join(names[:: max(1, len(names) // 5)][:6])
