"""What learns in a stage, and nothing else does."""

from __future__ import annotations

from nunbit.errors import ConfigError
from nunbit.lora import add_lora
from nunbit.vlm.config import Stage
from nunbit.vlm.model import VisionLanguageModel


def set_stage(model: VisionLanguageModel, stage: Stage) -> list[str]:
    """Let those parameters learn that a stage names, and freeze all others, in place.

    Args:
        model: Changed; corrections (LoRA) are added where the stage has them.
        stage: Which.

    Returns:
        The names of what learns.

    Raises:
        ConfigError: A name of the stage fits no parameter.
    """
    names = [name for name, _ in model.named_parameters()]
    for prefix in (*stage.train, *stage.rates):
        if not any(_below(name, prefix) for name in names):
            raise ConfigError(f"a stage names {prefix!r}, and no parameter is called so", hint=f"e.g. {names[0]}")
    if stage.lora is None:
        model.requires_grad_(False)
    else:
        add_lora(model, stage.lora)
    for name, parameter in model.named_parameters():
        if any(_below(name, prefix) for prefix in stage.train):
            parameter.requires_grad_(True)
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def rate_of(stage: Stage, name: str) -> float:
    """A parameter's factor on the learning rate: that of the longest beginning of its name."""
    found = [prefix for prefix in stage.rates if _below(name, prefix)]
    return stage.rates[max(found, key=len)] if found else 1.0


def _below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")
