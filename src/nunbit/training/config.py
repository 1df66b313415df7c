"""What decides how parameters move, as data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from nunbit.errors import ConfigError

TrainingPrecision: TypeAlias = Literal["float32", "bfloat16"]
OptimizerName: TypeAlias = Literal["adamw", "muon"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """The optimizer, its schedule, and what is kept of a run.

    Attributes:
        steps: Optimizer steps.
        optimizer: ``adamw`` (arXiv 1711.05101), or ``muon``: the matrices of transformer blocks are moved in
            orthogonalized directions (arXiv 2502.16982, scaled so that AdamW's rates fit), everything else by AdamW.
            From scratch it learns much more a step; a step costs some products of those matrices more.
        learning_rate: At its peak.
        warmup_steps: Over which the rate rises linearly from 0.
        final_rate: Share of ``learning_rate`` that a cosine ends at.
        weight_decay: Of matrices; biases, norms and scalars are not decayed.
        betas: Of AdamW.
        eps: Of AdamW.
        gradient_clip: Largest norm of all gradients together; 0 for none.
        ema_decay: An exponential moving average of the weights, which then is what is evaluated and saved; 0 for none.
            In the first steps it is ``(1 + step) / (10 + step)``, so that the average forgets the random start.
        precision: What products are computed in; weights, losses and the optimizer's state are always float32. None:
            bfloat16 where the machine multiplies in it, else float32.
        device: ``cpu``, ``cuda``; None: ``cuda`` when there is one.
        seed: Of every random choice.
        log_every: Steps between two lines of the log.
        evaluate_every: Steps between two evaluations; 0: only at the end.
        checkpoint_every: Steps between two checkpoints; there is one at the end in any case.
        keep_checkpoints: How many of them stay on the disk.
        fsdp: Divide parameters, gradients and the optimizer's state over the ranks (FSDP2), for towers that do not fit
            one of them. Otherwise every rank holds all of it.
        tensorboard: Write event files beside ``metrics.jsonl``.
    """

    steps: int = 1000
    optimizer: OptimizerName = "adamw"
    learning_rate: float = 5e-4
    warmup_steps: int = 100
    final_rate: float = 0.0
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    gradient_clip: float = 1.0
    ema_decay: float = 0.0
    precision: TrainingPrecision | None = None
    device: str | None = None
    seed: int = 0
    log_every: int = 10
    evaluate_every: int = 200
    checkpoint_every: int = 200
    keep_checkpoints: int = 2
    fsdp: bool = False
    tensorboard: bool = False

    def __post_init__(self) -> None:
        if min(self.steps, self.log_every, self.checkpoint_every, self.keep_checkpoints) < 1:
            raise ConfigError("steps, log_every, checkpoint_every and keep_checkpoints must be at least 1")
        if min(self.warmup_steps, self.evaluate_every) < 0:
            raise ConfigError("warmup_steps and evaluate_every must not be negative")
        if not self.learning_rate > 0 or self.gradient_clip < 0 or not 0 <= self.final_rate <= 1:
            raise ConfigError("expected learning_rate above 0, gradient_clip of at least 0, final_rate in [0, 1]")
        if self.optimizer == "muon" and self.fsdp:
            raise ConfigError("optimizer: muon needs whole matrices, which fsdp divides", hint="optimizer: adamw")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}, it must not be negative")
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"ema_decay is {self.ema_decay}, expected a number in [0, 1)")


def rate_factor(step: int, config: TrainingConfig) -> float:
    """Share of the peak rate at a step, counted from 0: a linear rise, then half a cosine (arXiv 1608.03983).

    It depends on the step alone, so a run that goes on from a checkpoint has no schedule to restore.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    passed = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(math.pi * min(passed, 1.0)))
