"""One batch on several processes: how texts meet the pictures of the others, and how sums come home.

``gather``: every process gets all texts. One exchange, memory for all N texts and their gradients.
``ring``: a block of texts travels from process to process with its sums, and is home after ``world`` hops. Memory for a
few blocks, whatever the number of processes; the next block is under way while one is worked on.

Shapes: n pairs of one process, N = world * n pairs of all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import torch
import torch.distributed as dist
from torch import Tensor

from nunbit.errors import UsageError

if TYPE_CHECKING:
    Work: TypeAlias = Callable[[bool, "Tensors", "Tensors"], None]

Exchange: TypeAlias = Literal["gather", "ring"]
Tensors: TypeAlias = tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Ranks:
    """The processes that share one batch, each with the same number of its pairs.

    Attributes:
        group: Of `torch.distributed`; None is the default group.
        exchange: ``gather`` is quicker where all texts and their gradients fit into memory, ``ring`` needs less of it.
    """

    group: dist.ProcessGroup | None = None
    exchange: Exchange = "gather"

    def __post_init__(self) -> None:
        """Refuse what cannot be an exchange."""
        if self.exchange not in get_args(Exchange):
            raise UsageError(f"exchange is {self.exchange!r}", hint=f"one of: {', '.join(get_args(Exchange))}")


class Ring:
    """The route of texts from process to process. One process is a ring of its own, where nothing is sent.

    Attributes:
        rank: Of this process in the group.
        world: Processes.
    """

    def __init__(self, group: dist.ProcessGroup | None, rank: int = 0, world: int = 1) -> None:
        self.group, self.rank, self.world = group, rank, world

    def share(self, tensors: Tensors) -> Tensors:
        """Make this process's tensors (n, ...) ready for `tour`; a collective call."""
        return tuple(tensor.contiguous() for tensor in tensors)

    def tour(self, work: Work, shared: Tensors, sums: Tensors, *, logs: int = 0) -> Tensors:
        """Let every process work on every block of texts.

        Args:
            work: Called once for each block, with whether it is this process's own, what is shared of it, and its sums
                so far, to be changed in place.
            shared: What `share` gave.
            sums: (n, ...) each, what a sum over nothing is.
            logs: How many of ``sums``, from the first, are logarithms of sums.

        Returns:
            (n, ...) each: the sums of this process's own texts over the pictures of all.
        """
        for hop in range(self.world):
            arriving = self._send(shared) if hop < self.world - 1 else None
            work(hop == 0, shared, sums)
            if self.world > 1 and sums:
                sums = self._send(sums)()
            if arriving is not None:
                shared = arriving()
        return sums

    def total(self, value: Tensor) -> Tensor:
        """The sum of a number over all processes, the same on each."""
        if self.world > 1:
            dist.all_reduce(value, group=self.group)
        return value

    def _send(self, tensors: Tensors) -> Callable[[], Tensors]:
        """Start to hand tensors to the next process; the result waits for those of the one before."""
        received = tuple(torch.empty_like(tensor) for tensor in tensors)
        after, before = (self.rank + 1) % self.world, (self.rank - 1) % self.world
        moves = [dist.P2POp(dist.isend, tensor, group=self.group, group_peer=after) for tensor in tensors]
        moves += [dist.P2POp(dist.irecv, tensor, group=self.group, group_peer=before) for tensor in received]
        under_way = dist.batch_isend_irecv(moves)

        def arrived() -> Tensors:
            for move in under_way:
                move.wait()
            return received

        return arrived


class Gather(Ring):
    """The route where every process gets all texts at once."""

    def share(self, tensors: Tensors) -> Tensors:
        """(n, ...) each → (N, ...) each."""
        return tuple(self._gathered(tensor.contiguous()) for tensor in tensors)

    def tour(self, work: Work, shared: Tensors, sums: Tensors, *, logs: int = 0) -> Tensors:
        """As `Ring.tour`; the blocks are all here, and what was summed for others is sent home at the end."""
        partial = tuple(torch.cat([nothing] * self.world) for nothing in sums)  # (N, ...) each
        for owner in range(self.world):
            block, into = (tuple(one.chunk(self.world)[owner] for one in every) for every in (shared, partial))
            work(owner == self.rank, block, into)
        for number, (home, part) in enumerate(zip(sums, partial, strict=True)):
            if number < logs:
                own = self._gathered(part).view(self.world, self.world, *home.shape)[:, self.rank]  # (world, n, ...)
                torch.logsumexp(own, 0, out=home)
            else:
                dist.reduce_scatter_tensor(home, part, group=self.group)
        return sums

    def _gathered(self, tensor: Tensor) -> Tensor:
        every = tensor.new_empty(self.world * len(tensor), *tensor.shape[1:])
        dist.all_gather_into_tensor(every, tensor, group=self.group)
        return every


def route_of(ranks: Ranks | None) -> Ring:
    """The way that texts take.

    Raises:
        UsageError: `torch.distributed` was not started.
    """
    if ranks is None:
        return Ring(None)
    if not (dist.is_available() and dist.is_initialized()):
        raise UsageError("there are no ranks", hint="call torch.distributed.init_process_group first")
    rank, world = dist.get_rank(ranks.group), dist.get_world_size(ranks.group)
    kind = Gather if ranks.exchange == "gather" and world > 1 else Ring
    return kind(ranks.group, rank, world)


def check_alike(route: Ring, what: Sequence[str], values: Sequence[int], device: torch.device) -> None:
    """Refuse, on every rank, to begin an exchange that would hang or mix up memory.

    Args:
        route: Of the exchange.
        what: The name of each value.
        values: What must be the same on all ranks.
        device: Where the group's backend works.

    Raises:
        UsageError: Ranks differ; all of them raise.
    """
    if route.world == 1:
        return
    mine = torch.tensor(values, device=device)
    every = mine.new_empty(route.world * len(values))
    dist.all_gather_into_tensor(every, mine, group=route.group)
    for name, found in zip(what, every.view(route.world, -1).T.tolist(), strict=True):
        if len(set(found)) > 1:
            raise UsageError(
                f"{name} must be the same on all ranks, but is {', '.join(map(str, found))}",
                hint="give every rank a part of the batch of the same size and kind: drop an incomplete last one",
            )
