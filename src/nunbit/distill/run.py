"""A distillation run, from pictures to a model folder and a report.

::

    pictures ─ views ─┬─ teacher, once ─ lessons ─┐
                      └─ squares ─────────────────┴─ task ─ training.loop ─ model/ ─ comparison ─ report.html
    published weights ─ ridge regression ─ student ┘
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.resources import files as resource_files
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nunbit.config import read_config, to_plain
from nunbit.console import track
from nunbit.contrastive.run import choose_precision, package_versions
from nunbit.cores import usable_cores
from nunbit.distill.config import DistillConfig
from nunbit.distill.lessons import Lessons, list_pictures, signature
from nunbit.distill.measures import Comparison, compare
from nunbit.distill.start import ridge_regression, start_tower, student_preprocessing
from nunbit.distill.task import DistillationTask, HeldOut, Words
from nunbit.distill.views import StudentPictures
from nunbit.distilled.config import DistilledConfig, LiteTower, TeacherInfo
from nunbit.distilled.encoder import write_distilled
from nunbit.distilled.tower import LiteEncoder
from nunbit.encode import Encoder
from nunbit.errors import UsageError
from nunbit.loading import STARTER, load
from nunbit.preprocessing import Preprocessing
from nunbit.training.checkpoint import list_checkpoints
from nunbit.training.config import TrainingPrecision
from nunbit.training.distributed import join_world
from nunbit.training.loop import Watcher, train
from nunbit.training.report import write_report
from nunbit.training.run_folder import RunFolder
from nunbit.types import Rejected

_BATCH = 64
_MOST_FITTED = 20_000  # pictures of the regression
_MOST_MEASURED = 2_000  # held-out pictures that are kept in memory
_MOST_COMPARED = 512  # held-out pictures that both look at in the end


@dataclass(frozen=True, slots=True)
class DistillResult:
    """What a run gave.

    Attributes:
        model: The model folder.
        report: The page.
        comparison: The student beside its teacher.
    """

    model: Path
    report: Path
    comparison: Comparison


def load_config(
    pictures: Sequence[str],
    path: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    *,
    overrides: Sequence[str] = (),
) -> DistillConfig:
    """Gather a configuration.

    Args:
        pictures: Files and folders.
        path: A YAML file; None: everything but the pictures has a default.
        settings: Values by dotted names, which replace those of the file.
        overrides: ``a.b=value`` each, which replace both.

    Raises:
        ConfigError: A setting that does not exist, or has a value of the wrong kind.
    """
    given = {"pictures.paths": [os.path.abspath(one) for one in pictures], **(settings or {})}
    config = read_config(DistillConfig, path, overrides, given=given)
    is_path = config.teacher != STARTER and Path(config.teacher).exists()
    return replace(config, teacher=os.path.abspath(config.teacher)) if is_path else config


def run_distillation(
    config: DistillConfig,
    into: Path,
    watcher: Watcher,
    *,
    engine: str | None = None,
    tell: Callable[[str], None] | None = None,
    command: str = "",
) -> DistillResult:
    """Distill, or go on with a run that was interrupted.

    Args:
        config: All of it.
        into: The run's folder.
        watcher: Told of each step.
        engine: Of the teacher, and of both when they are compared; as `nunbit.load` takes it.
        tell: Told in a few words what takes long.
        command: What the user typed, for the report.

    Raises:
        UsageError: The folder holds another run, there is no picture, or several processes were started.
        ModelNotFound: There is no such teacher, or the package with the student's published weights is not installed.
        TrainingError: Too few pictures can be used, or the loss is no number any more.
    """
    with join_world(config.training.device) as world:
        if world.size > 1:
            raise UsageError("a distillation runs in one process", hint="start it without torchrun")
        teacher = load(config.teacher, engine=engine, tell=tell)
        rejected: list[Rejected] = []
        files = list_pictures(config.pictures.paths, rejected.append)
        folder = RunFolder(into)
        precision = config.training.precision or _precision(config, world.device)
        plain: dict[str, Any] = to_plain(config)
        plain["training"] |= {"precision": precision}
        resolved = plain | {
            "command": command or " ".join(sys.argv),
            "data_fingerprint": signature(files),
            "teacher_fingerprint": teacher.fingerprint,
            "versions": package_versions(),
        }
        with folder.opened(resolved):
            for item in rejected:
                folder.set_aside(item)
            run = _Run(config, folder, teacher, files, precision)
            train(run.make_task(world.device), config.training, folder, world, watcher)
            return run.finish(engine, tell)


class _Run:
    """The parts of one run."""

    def __init__(
        self,
        config: DistillConfig,
        folder: RunFolder,
        teacher: Encoder,
        files: list[Path],
        precision: TrainingPrecision,
    ) -> None:
        self.config, self.folder, self.teacher, self.precision = config, folder, teacher, precision
        self.labels = list(config.labels or default_labels())
        seed = config.training.seed
        self.lessons = Lessons(
            files, config.pictures, folder.path / "features", seed=seed, embedding_size=teacher.embedding_size
        )
        self.lessons.ask(teacher, folder.set_aside)
        self.preprocessing = student_preprocessing(config.tower, teacher.preprocessing)
        self.squares = StudentPictures(files, self.preprocessing, config.pictures, seed=seed)
        torch.manual_seed(seed)
        self.tower = start_tower(config.tower, teacher.embedding_size)

    def make_task(self, device: torch.device) -> DistillationTask:
        """What the loop trains; a run that begins starts from the linear map that is nearest to the teacher."""
        if isinstance(self.tower.encoder, LiteEncoder) and not list_checkpoints(self.folder.checkpoints):
            numbers = _spread(self.lessons.numbers(held_out=False), _MOST_FITTED)
            images = track(self._images(numbers), label="fitting", total=math.ceil(len(numbers) / _BATCH))
            fit_projection(self.tower.encoder, images, self.lessons.whole(numbers), self.preprocessing)
        self.tower.to(device)
        held_out = _spread(self.lessons.numbers(held_out=True), _MOST_MEASURED)
        return DistillationTask(
            self.tower,
            self.preprocessing,
            lambda start: self.lessons.batches(start, self.squares),
            held_out=HeldOut(torch.cat(list(self._images(held_out))), self.lessons.whole(held_out)),
            words=Words(torch.from_numpy(self.teacher.encode_text(self.labels)), self.teacher.logit_scale),
            losses=self.config.losses,
            precision=self.precision,
        )

    def finish(self, engine: str | None, tell: Callable[[str], None] | None) -> DistillResult:
        """Save, open what was saved, compare it with the teacher, and write that into the card."""
        config, name = self.config, self.config.name
        state = self.tower.state_dict()
        provenance: dict[str, Any] = {
            "nunbit": version("nunbit"),
            "configuration": "config.json of the run",
            "seed": config.training.seed,
            "steps": config.training.steps,
            "pictures": len(self.lessons.numbers(held_out=False)),
            "picture folders": ", ".join(Path(path).name for path in config.pictures.paths),
        }
        write_distilled(self.folder.model, self._describe(provenance), state, name)
        student = load(self.folder.model, engine=engine, tell=tell)
        held_out = [
            self.lessons.files[number] for number in _spread(self.lessons.numbers(held_out=True), _MOST_COMPARED)
        ]
        found = compare(self.teacher, student, held_out, self.labels)
        write_distilled(self.folder.model, self._describe(provenance | found.lines()), state, name)
        return DistillResult(self.folder.model, write_report(self.folder.path), found)

    def _describe(self, provenance: Mapping[str, Any]) -> DistilledConfig:
        teacher = self.teacher
        return DistilledConfig(
            tower=self.config.tower,
            embedding_size=teacher.embedding_size,
            preprocessing=self.preprocessing,
            teacher=TeacherInfo(
                model=self.config.teacher,
                fingerprint=teacher.fingerprint,
                logit_scale=teacher.logit_scale,
                logit_bias=teacher.logit_bias,
            ),
            license=self.config.license,
            provenance=provenance,
        )

    def _images(self, numbers: Sequence[int]) -> Iterator[Tensor]:
        """Whole pictures, (B, S, S, 3) uint8 at a time."""
        with ThreadPoolExecutor(usable_cores(), thread_name_prefix="nunbit-decode") as pool:
            for start in range(0, len(numbers), _BATCH):
                found = pool.map(self.squares.get, numbers[start : start + _BATCH], repeat(0))
                yield torch.from_numpy(np.stack(list(found)))


@torch.no_grad()
def fit_projection(encoder: LiteEncoder, images: Iterable[Tensor], rows: Tensor, preprocessing: Preprocessing) -> None:
    """Give a student with published weights the linear map that is nearest to its teacher, in place.

    Args:
        encoder: Its backbone is left as it is.
        images: (B, S, S, 3) uint8 at a time, N in all.
        rows: (N, E) float32, the teacher's.
        preprocessing: The student's.
    """
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    encoder.eval()
    pixels = ((part.permute(0, 3, 1, 2).float() / 255 - mean) / std for part in images)
    features = torch.cat(
        [encoder.backbone.features(part.contiguous(memory_format=torch.channels_last)) for part in pixels]
    )
    weight, bias = ridge_regression(features, rows)
    encoder.projection.weight.copy_(weight)
    encoder.projection.bias.copy_(bias)


def _precision(config: DistillConfig, device: torch.device) -> TrainingPrecision:
    """EfficientNet-Lite learns at half the speed in bfloat16 on a CPU, whose depth-wise convolutions are slow there."""
    return "float32" if isinstance(config.tower, LiteTower) and device.type == "cpu" else choose_precision(device)


def default_labels() -> list[str]:
    """Some hundred names of everyday things, in English."""
    return (resource_files("nunbit.distill") / "words.txt").read_text(encoding="utf-8").split("\n")[:-1]


def _spread(numbers: Sequence[int], most: int) -> list[int]:
    """At most so many of them, evenly."""
    return list(numbers[:: math.ceil(len(numbers) / most)])
