"""Which parameters are moved by which optimizer, how fast, and which are decayed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from nunbit.errors import ConfigError
from nunbit.training.config import TrainingConfig


def make_optimizers(
    module: nn.Module, config: TrainingConfig, factor: Callable[[str], float] = lambda _: 1.0
) -> list[torch.optim.Optimizer]:
    """AdamW for everything; or Muon for the matrices of blocks, where there are any, and AdamW for the rest.

    Args:
        module: Its parameters that require a gradient are moved.
        config: Of the run.
        factor: The name of a parameter → its share of the rate, as layer-wise decay wants it.

    Raises:
        ConfigError: No parameter requires a gradient.
    """
    groups = parameter_groups(
        module, learning_rate=config.learning_rate, weight_decay=config.weight_decay, factor=factor
    )
    hidden = _matrices_of_blocks(module) if config.optimizer == "muon" else set()
    by_muon = _only(groups, lambda parameter: parameter in hidden)
    by_adamw = _only(groups, lambda parameter: parameter not in hidden)
    found: list[torch.optim.Optimizer] = []
    if by_muon:
        found.append(torch.optim.Muon(by_muon, adjust_lr_fn="match_rms_adamw"))
    if by_adamw:
        # One kernel for all parameters; those that FSDP divides do not mix with others in one.
        many = {"foreach": False} if config.fsdp else {"fused": True}
        found.append(torch.optim.AdamW(by_adamw, betas=config.betas, eps=config.eps, **many))
    return found


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


def _matrices_of_blocks(module: nn.Module) -> set[nn.Parameter]:
    """Weights of what maps one hidden state to another: not of embeddings, patches, adapters or projections."""
    return {
        part.weight  # that of an adapter is computed, and no parameter
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear)
        and isinstance(part.weight, nn.Parameter)
        and f".{name}".rpartition(".blocks.")[1]
    }


def _only(groups: list[dict[str, Any]], wanted: Callable[[nn.Parameter], bool]) -> list[dict[str, Any]]:
    chosen = [group | {"params": [one for one in group["params"] if wanted(one)]} for group in groups]
    return [group for group in chosen if group["params"]]
