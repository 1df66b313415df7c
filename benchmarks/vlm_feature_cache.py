"""What it saves that a frozen eye looks once: an epoch's pictures, and a whole training step.

Usage: python benchmarks/vlm_feature_cache.py --coco ../shared/data/coco [--pictures 64] [--page]

The first stage learns from captions of COCO photographs, with the eye looking at each step, and with features from the
disk. Where these are float32, the losses of all steps must be the same to 1e-3; in float16, the default, that of the
first step, which finds the same weights: later ones part as runs with other roundings do, and by how much is shown.
Eyes: the starter's, and SigLIP-B/16 at 224 pixels as nanoVLM has it (random weights: time does not depend on them),
both in front of SmolLM2-135M.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
from nunbit.data.captioned_photos import read_captioned_photos
from nunbit.instruct.config import ConversationSource, InstructConfig, InstructDataConfig, InstructModelConfig
from nunbit.instruct.easy_vqa import ask
from nunbit.instruct.formats import Conversation, write_conversations
from nunbit.instruct.pictures import Pictures
from nunbit.instruct.run import make_model, run_instruct
from nunbit.instruct.starter_lessons import DESCRIBE
from nunbit.training.config import TrainingConfig
from nunbit.training.diagnosis import Finding
from nunbit.training.feature_store import FeatureStore
from nunbit.vlm.batching import SampleReader
from nunbit.vlm.config import Stage

from pages import Page, table

ALIGN = Stage(train=("projector",), plain=True)
BATCH = 16
EPOCHS = 2
ROUNDS = 3


class Unwatched:
    """Watches nothing."""

    def progress(self, step: int, values: Mapping[str, float]) -> None:
        """As `nunbit.training.loop.Watcher.progress`."""

    def found(self, finding: Finding) -> None:
        """As `nunbit.training.loop.Watcher.found`."""


@dataclass(frozen=True, slots=True)
class Run:
    """Seconds a step, median, and the loss of each step."""

    seconds: float
    losses: tuple[float, ...]


def main() -> None:
    """Look, read, train, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--coco", type=Path, required=True, help="holds captions_boxes.jsonl and images/")
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--page", action="store_true", help="write benchmarks/results")
    options = parser.parse_args()
    photos = read_captioned_photos(options.coco.resolve())[: options.pictures]
    asked = [ask(photo.path.stem, photo.path, DESCRIBE, photo.captions[0]) for photo in photos]
    page = Page("vlm-feature-cache", "What it saves that a frozen eye looks once")
    rows = [row for eye in ("starter", "nanovlm") for row in _measure(eye, asked, page)]
    head = ["", "looking each time, ms", "from the disk, ms", "times as quick"]
    page.add(f"{len(asked)} photographs. Bar: an epoch's pictures at least 10 times as quick, losses the same to 1e-3.")
    page.add(table(head, rows))
    page.close(to_file=options.page)


def _measure(eye: str, asked: list[Conversation], page: Page) -> list[list[str]]:
    config = InstructModelConfig(preset=eye, language_model="smollm2-135m-instruct", learns=ALIGN)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        looking, reading = _pictures(config, asked, folder)
        write_conversations(folder / "captions.jsonl", asked, "messages")
        each, exact, once = (_run(config, folder, cache) for cache in (None, "float32", "float16"))
    apart, drifted = (
        [abs(one - other) for one, other in zip(each.losses, run.losses, strict=True)] for run in (exact, once)
    )
    if max(*apart, drifted[0]) > 1e-3:
        page.wrong.append(f"{eye}: losses are {max(*apart, drifted[0]):.1e} apart")
    if looking < 10 * reading:
        page.wrong.append(f"{eye}: only {looking / reading:.1f} times as quick")
    page.add(
        f"{eye}: losses of {len(each.losses)} steps in float32 at most {max(apart):.1e} apart; in float16 "
        f"{drifted[0]:.1e} at the first step, {max(drifted):.1e} at most."
    )
    return [
        _row(f"{eye}'s eye, a picture of an epoch", looking, reading),
        _row(f"{eye}, all of a step, a sample", each.seconds / BATCH, once.seconds / BATCH),
    ]


def _row(name: str, looking: float, reading: float) -> list[str]:
    return [name, f"{1000 * looking:.1f}", f"{1000 * reading:.2f}", f"{looking / reading:.1f}"]


def _pictures(config: InstructModelConfig, asked: list[Conversation], folder: Path) -> tuple[float, float]:
    """Seconds a picture: opened and looked at, and taken from the disk; the quickest of a few rounds each."""
    model = make_model(config)[0].requires_grad_(False)
    reader = SampleReader(model)
    opened, kept = Pictures(model, reader.looker), Pictures(model, reader.looker)
    store = FeatureStore(folder / "features", "eye", model.eye.num_patches * model.eye.hidden_size, "float16")
    kept.look_once([image for one in asked for image in one.images], store, lambda _: None)

    def look(pictures: Pictures) -> Callable[[], None]:
        def epoch() -> None:
            for start in range(0, len(asked), BATCH):
                seen = pictures.see([image for one in asked[start : start + BATCH] for image in one.images])
                assert seen is not None
                if not pictures.cached:
                    with torch.no_grad():
                        model.eye(seen)

        return epoch

    turns = {"looking": look(opened), "reading": look(kept)}
    taken: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(ROUNDS):
        for name, epoch in turns.items():
            start = time.perf_counter()
            epoch()
            taken[name].append((time.perf_counter() - start) / len(asked))
    return min(taken["looking"]), min(taken["reading"])


def _run(model: InstructModelConfig, folder: Path, cache: Literal["float32", "float16"] | None) -> Run:
    data = InstructDataConfig(
        train=(ConversationSource(path=str(folder / "captions.jsonl")),), batch_size=BATCH, cache=cache
    )
    samples = len((folder / "captions.jsonl").read_text().splitlines())
    training = TrainingConfig(
        steps=EPOCHS * samples // BATCH, learning_rate=1e-4, log_every=1, evaluate_every=0, precision="float32"
    )
    into = folder / f"run-{cache}"
    run_instruct(InstructConfig(model=model, data=data, training=training), into, Unwatched())
    logged = [json.loads(line) for line in (into / "metrics.jsonl").read_text().splitlines()]
    steps = [one for one in logged if "loss" in one]
    seconds = sorted(later["seconds"] - one["seconds"] for one, later in pairwise(steps))
    return Run(seconds[len(seconds) // 2], tuple(one["loss"] for one in steps))


if __name__ == "__main__":
    main()
