"""Which parameters the optimizer moves, how fast, and which are decayed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from torch import nn

from nunbit.errors import ConfigError


def parameter_groups(
    module: nn.Module, *, learning_rate: float, weight_decay: float, factor: Callable[[str], float] = lambda _: 1.0
) -> list[dict[str, Any]]:
    """Groups for an optimizer: one for every rate, with decay and without.

    Args:
        module: Its parameters that require a gradient are taken.
        learning_rate: Of a parameter with factor 1.
        weight_decay: Of matrices; vectors and scalars (biases, norms, a logit scale) get none.
        factor: The name of a parameter → its share of the rate, as layer-wise decay wants it.

    Raises:
        ConfigError: No parameter requires a gradient.
    """
    members: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            decay = weight_decay if parameter.ndim >= 2 else 0.0
            members[learning_rate * factor(name), decay].append(parameter)
    if not members:
        raise ConfigError("nothing is left to train", hint="both towers are locked; free one or add lora")
    return [
        {"params": parameters, "lr": rate, "peak_rate": rate, "weight_decay": decay}
        for (rate, decay), parameters in members.items()
    ]
