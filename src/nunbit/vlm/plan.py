"""What a vision-language model will be, before it is: parts, shapes, memory and time of each stage.

Nothing is allocated but a few megabytes: a model of 55 billion parameters is planned on the meta device, where tensors
have shapes and no numbers. Products are counted by running a training step there.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nunbit.errors import UsageError
from nunbit.language_model import make_language_model
from nunbit.vlm.config import PARTS, VlmConfig
from nunbit.vlm.looking import Looker
from nunbit.vlm.model import VisionLanguageModel
from nunbit.vlm.stages import set_stage

_LEARNED_BYTES = 16  # weight, gradient and the two averages of AdamW, in float32
_FROZEN_BYTES = (4, 2)  # in float32, in bfloat16
_SIDE = 1024  # of the matrices whose product is timed


@dataclass(frozen=True, slots=True)
class PlanSample:
    """A sample as a plan imagines it.

    Attributes:
        width: Of its one picture, in pixels.
        height: Of that.
        text_tokens: Tokens of all words; of an encoder-decoder in the question, and as many in the answer.
    """

    width: int = 640
    height: int = 480
    text_tokens: int = 128

    def __post_init__(self) -> None:
        if min(self.width, self.height, self.text_tokens) < 1:
            raise UsageError(f"{self}: expected a picture of at least 1 x 1, and at least one token")


@dataclass(frozen=True, slots=True)
class Joint:
    """What goes over from one part to the next.

    Attributes:
        where: Behind which part.
        shape: Of one look, without the batch.
    """

    where: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StagePlan:
    """A stage of training.

    Attributes:
        name: ``align`` or ``finetune``.
        learns: What the stage names.
        learned: Parameters that learn.
        frozen: Those that do not.
        memory: Bytes of weights, gradients and optimizer in float32, without activations.
        memory_bfloat16: The same with what is frozen in bfloat16.
        flops: Floating-point operations of a sample, there and back.
        seconds: Of a sample on this machine: an estimate.
    """

    name: str
    learns: tuple[str, ...]
    learned: int
    frozen: int
    memory: int
    memory_bfloat16: int
    flops: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What a model will be.

    Attributes:
        parameters: Of each part, by its name.
        joints: From the picture to the logits.
        tokens_per_look: Q.
        looks: How often the eye looks at the sample's picture.
        sample: What was imagined.
        stages: In their order.
        flops_per_second: What this machine multiplies, measured on matrices that fit its caches.
    """

    parameters: dict[str, int]
    joints: tuple[Joint, ...]
    tokens_per_look: int
    looks: int
    sample: PlanSample
    stages: tuple[StagePlan, ...]
    flops_per_second: float


def make_plan(config: VlmConfig, sample: PlanSample | None = None) -> Plan:
    """Plan a model.

    Args:
        config: Which.
        sample: What it will learn from; by default a picture of 640 x 480 and 128 tokens.

    Raises:
        ConfigError: Parts that do not fit each other, or a stage that names nothing.
    """
    sample = sample or PlanSample()
    with torch.device("meta"):
        model = VisionLanguageModel(config, make_language_model(config.language_model))
    parameters = {part: _count(getattr(model, part)) for part in PARTS}
    tokens = model.tokens_per_picture
    looks = Looker(model.eye.preprocessing, tokens, config.tiles).layout(sample.width, sample.height).looks
    speed = measure_speed()
    joints = _joints(model, looks, sample)
    names = ["finetune"] if config.align is None else ["align", "finetune"]
    stages = [_plan_stage(model, name, looks, sample, speed) for name in names]
    return Plan(parameters, joints, tokens, looks, sample, tuple(stages), speed)


def measure_speed(seconds: float = 0.2) -> float:
    """Floating-point operations a second in products of matrices, on this machine's processor, in float32."""
    left, right = torch.rand(_SIDE, _SIDE), torch.rand(_SIDE, _SIDE)
    quickest, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end or quickest == float("inf"):
        start = time.perf_counter()
        left @ right
        quickest = min(quickest, time.perf_counter() - start)  # others may be at work here, too
    return 2 * _SIDE**3 / quickest


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _joints(model: VisionLanguageModel, looks: int, sample: PlanSample) -> tuple[Joint, ...]:
    side, words = model.config.eye_size, model.language_model
    read = looks * model.tokens_per_picture + sample.text_tokens
    said = sample.text_tokens if words.is_encoder_decoder else read
    return (
        Joint("picture", (3, side, side)),
        Joint("eye", (model.eye.num_patches, model.eye.hidden_size)),
        Joint("projector", (model.tokens_per_picture, words.hidden_size)),
        Joint("with words", (read, words.hidden_size)),
        Joint("language_model", (said, words.vocab_size)),
    )


def _plan_stage(model: VisionLanguageModel, name: str, looks: int, sample: PlanSample, speed: float) -> StagePlan:
    stage = model.config.stage(name)
    set_stage(model, stage)
    learned = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    frozen = _count(model) - learned
    memory, memory_bfloat16 = (learned * _LEARNED_BYTES + frozen * size for size in _FROZEN_BYTES)
    flops = _count_flops(model, looks, sample)
    learns = (*stage.train, *(() if stage.lora is None else stage.lora.targets))
    return StagePlan(name, learns, learned, frozen, memory, memory_bfloat16, flops, flops / speed)


def _count_flops(model: VisionLanguageModel, looks: int, sample: PlanSample) -> int:
    """Operations of a training step with one sample, counted on the meta device."""
    words, side = model.language_model, model.config.eye_size
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        features = model.image_features(torch.empty(looks, 3, side, side))
        question = torch.empty(looks, min(32, sample.text_tokens), dtype=torch.long)
        tokens = model.projector(features, question) if model.reads_instruction else model.projector(features)
        ids = torch.empty(1, sample.text_tokens, dtype=torch.long)
        embedded = torch.cat([tokens.flatten(0, 1)[None], words.embed(ids)], dim=1)
        length = embedded.shape[1]
        if words.is_encoder_decoder:
            output = words(embedded, labels=ids)
        else:  # with mask and positions, which would be looked at where there are none
            mask = torch.empty(1, 1, length, length, dtype=torch.bool)
            labels, positions = torch.empty(2, 1, length, dtype=torch.long)
            output = words(embedded, mask, labels=labels, position_ids=positions)
        output.loss.backward()
    model.zero_grad()
    return int(counter.get_total_flops())


def render_plan(plan: Plan, title: str) -> list[str]:
    """A plan as lines to read.

    Args:
        plan: As `make_plan` gives it.
        title: The model's name.
    """
    lines = [f"{title}: {sum(plan.parameters.values()):,} parameters"]
    lines += [f"  {part.replace('_', ' '):16}{count:>16,}" for part, count in plan.parameters.items()]
    lines += ["shapes", *(f"  {joint.where.replace('_', ' '):16}{_times(joint.shape)}" for joint in plan.joints)]
    sample, tokens = plan.sample, plan.looks * plan.tokens_per_look
    looks = "one look" if plan.looks == 1 else f"{plan.looks} looks"
    lines.append(
        f"a sample: a picture of {sample.width} x {sample.height} pixels, {looks}, {tokens:,} tokens;"
        f" {sample.text_tokens:,} tokens of words"
    )
    for stage in plan.stages:
        lines += _render_stage(stage)
    speed = f"{plan.flops_per_second / 1e9:,.0f} GFLOP/s"
    return [*lines, f"times are estimates from one product of matrices ({speed} here); real steps are slower"]


def _render_stage(stage: StagePlan) -> list[str]:
    share = 100 * stage.learned / (stage.learned + stage.frozen)
    halved = f", {_size(stage.memory_bfloat16)} with what is frozen in bfloat16" if stage.frozen else ""
    return [
        f"{stage.name}: {stage.learned:,} parameters learn ({share:.3g} %): {', '.join(stage.learns)}",
        f"  memory          {_size(stage.memory)}{halved}; activations come on top",
        f"  a sample        {_decimal(stage.flops / 1e9)} GFLOP, about {_seconds(stage.seconds)} on this processor",
    ]


def _times(shape: Sequence[int]) -> str:
    return " x ".join(f"{size:,}" for size in shape)


def _size(count: int) -> str:
    number, unit = (count / 2**30, "GiB") if count >= 2**30 else (count / 2**20, "MiB")
    return f"{number:,.0f} {unit}" if number >= 10 else f"{number:.1f} {unit}"


def _seconds(seconds: float) -> str:
    if seconds < 0.1:
        return f"{1000 * seconds:.2g} ms"
    return f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def _decimal(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"
