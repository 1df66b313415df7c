"""Averages of weights: along a run (EMA), and between a model's start and its end (WiSE-FT)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nunbit.training.distributed import divided_like


class WeightAverage:
    """An exponential moving average of the parameters that are trained.

    ``average = d * average + (1 - d) * weight``, with ``d = min(decay, (1 + step) / (10 + step))``.

    Args:
        module: What is trained.
        decay: In [0, 1).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        self._trained = trained_parameters(module)
        self.averages = {name: weight.detach().clone() for name, weight in self._trained.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights as they are after a step, counted from 0."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, weight in self._trained.items():
            self.averages[name].lerp_(weight, 1 - decay)

    @contextmanager
    def applied(self, *, keep: bool = False) -> Iterator[None]:
        """Have the module carry the averages while the block runs, or for good with ``keep``."""
        kept = {} if keep else {name: weight.detach().clone() for name, weight in self._trained.items()}
        self._assign(self.averages)
        try:
            yield
        finally:
            self._assign(kept)

    def load(self, averages: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        for name, average in self.averages.items():
            average.copy_(divided_like(averages[name], average))

    @torch.no_grad()
    def _assign(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self._trained[name].copy_(value)


def trained_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that require a gradient, by name."""
    return {name: weight for name, weight in module.named_parameters() if weight.requires_grad}


@torch.no_grad()
def interpolate(module: nn.Module, start: Mapping[str, Tensor], end: Mapping[str, Tensor], alpha: float) -> None:
    """Set weights to ``(1 - alpha) * start + alpha * end`` (WiSE-FT, arXiv 2109.01903).

    What lies between the start and the end of a fine-tuning often keeps what both know.

    Args:
        module: Gets the weights.
        start: Parameters by name, and running statistics of batch norms, before training.
        end: The same after it.
        alpha: 0 is the start, 1 the end.
    """
    for name, weight in (*module.named_parameters(), *module.named_buffers()):
        if name in start and weight.is_floating_point():  # counts of batches are no weights
            weight.copy_(torch.lerp(start[name].to(weight.device), end[name], alpha))
