"""The recipe of the starter's vision-language model: two stages on its lessons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from nunbit.instruct.config import ConversationSource, InstructConfig, InstructDataConfig, InstructModelConfig
from nunbit.instruct.run import run_instruct
from nunbit.instruct.starter_lessons import write_starter_lessons
from nunbit.training.config import TrainingConfig
from nunbit.training.loop import Watcher

LANGUAGE_MODEL = "smollm2-135m-instruct"
LICENSE = "Apache-2.0"
_ROW = 512  # tokens of a row: attention within one costs little then, and products are large enough to be quick


def train_starter_vlm(
    coco: Path,
    into: Path,
    watch: Callable[[int], AbstractContextManager[Watcher]],
    *,
    drawings: Sequence[Path] = (),
    seed: int = 0,
) -> Path:
    """Write the lessons, align, fine-tune; what was interrupted goes on.

    Args:
        coco: As `nunbit.instruct.starter_lessons.write_starter_lessons` takes it.
        into: Holds the lessons and both runs.
        watch: Number of steps → who watches them.
        drawings: Pairs that the first stage learns from, too.
        seed: Of every random choice.

    Returns:
        The model folder.
    """
    files = write_starter_lessons(coco, into / "lessons", drawings)
    model: Path | None = None
    for name, config in stages({name: str(path.resolve()) for name, path in files.items()}, into, seed).items():
        with watch(config.training.steps) as watcher:
            result = run_instruct(config, into / name, watcher)
        if result is not None:
            model = result.model
    assert model is not None
    return model


def stages(files: dict[str, str], into: Path, seed: int) -> dict[str, InstructConfig]:
    """Both stages, in order.

    Args:
        files: Lessons, by the names of `nunbit.instruct.starter_lessons.write_starter_lessons`.
        into: As `train_starter_vlm` takes it.
        seed: Of every random choice.
    """
    held_out = (ConversationSource(path=files["held-out"]),)
    captions = [ConversationSource(path=files["captions"])]
    if "drawings" in files:
        captions.append(ConversationSource(path=files["drawings"], share=0.15))
    align = InstructConfig(
        model=InstructModelConfig(preset="starter", language_model=LANGUAGE_MODEL, stage="align"),
        data=InstructDataConfig(train=tuple(captions), batch_size=64, micro_tokens=_ROW),
        training=TrainingConfig(
            steps=100, learning_rate=1e-4, warmup_steps=5, log_every=2, weight_decay=0.0, evaluate_every=0, seed=seed
        ),
        name="starter-vlm, aligned",
        license=LICENSE,
    )
    train = (
        ConversationSource(path=files["easy-vqa"], share=0.8),
        ConversationSource(path=files["described"], share=0.6),
        ConversationSource(path=files["photos"], share=2.0),
    )
    finetune = InstructConfig(
        model=InstructModelConfig(start=str((into / "align" / "model").resolve()), stage="finetune"),
        data=InstructDataConfig(train=train, validation=held_out, batch_size=64, micro_tokens=_ROW),
        training=TrainingConfig(
            steps=700, learning_rate=5e-4, warmup_steps=20, weight_decay=0.05, evaluate_every=175, seed=seed
        ),
        name="starter-vlm",
        license=LICENSE,
    )
    return {"align": align, "finetune": finetune}
