"""A contrastive training run, from a configuration to a model folder and a report.

::

    sources ─ mixture ─ batches ┐
                                ├─ task ─ training.loop ─ [WiSE-FT] ─ model/ ─ report.html
    start or new model ─ student┘
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nunbit.config import read_config, to_plain
from nunbit.console import progress_bar
from nunbit.contrastive.batches import BatchMaker, Stores
from nunbit.contrastive.config import ContrastiveConfig
from nunbit.contrastive.start import make_student
from nunbit.contrastive.students import Student
from nunbit.contrastive.task import ContrastiveTask
from nunbit.contrastive.validation import Retrieval, choose_alpha
from nunbit.contrastive.validation_sets import read_validation
from nunbit.data import Mixture, SourceConfig, open_source
from nunbit.encode import Encoded, encode_stream
from nunbit.engine.machine import this_machine
from nunbit.errors import ConfigError
from nunbit.lora import merged_parameters
from nunbit.training.averaging import interpolate
from nunbit.training.config import TrainingPrecision
from nunbit.training.distributed import World, gather_state, join_world
from nunbit.training.feature_store import FeatureStore
from nunbit.training.loop import Watcher, train
from nunbit.training.report import write_report
from nunbit.training.run_folder import RunFolder
from nunbit.types import ImageText, Rejected

if TYPE_CHECKING:
    from nunbit.types import FloatArray

_GROUP = 64  # pictures or texts of a locked tower that are kept at a time


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run gave.

    Attributes:
        model: The model folder.
        report: The page.
        validation: Figures of the saved model, by name.
    """

    model: Path
    report: Path
    validation: Mapping[str, float]


def load_config(path: Path, overrides: Sequence[str] = ()) -> ContrastiveConfig:
    """Read a configuration; paths in it start from the folder of its file.

    Args:
        path: A YAML file.
        overrides: ``a.b=value`` each.

    Raises:
        ConfigError: A setting that does not exist, or has a value of the wrong kind.
    """
    config = read_config(ContrastiveConfig, path, overrides)
    data = config.data
    here = partial(_from_folder, path.resolve().parent)
    sources = [
        tuple(replace(source, path=here(source.path), images=here(source.images)) for source in group)
        for group in (data.train, data.validation)
    ]
    start = config.model.start
    if start is not None and Path(here(start)).exists():
        start = here(start)
    return replace(
        config,
        model=replace(config.model, start=start),
        data=replace(data, train=sources[0], validation=sources[1]),
    )


def _from_folder(folder: Path, path: str) -> str:
    return path if not path or "://" in path else str(folder / path)


def run_contrastive(config: ContrastiveConfig, into: Path, watcher: Watcher, *, command: str = "") -> RunResult | None:
    """Train, or go on with a run that was interrupted.

    Args:
        config: All of it.
        into: The run's folder.
        watcher: Told of each step.
        command: What the user typed, for the report.

    Returns:
        What came of it; None on all processes but the first.

    Raises:
        UsageError: The folder holds another run, or a source is not there.
        TrainingError: No picture can be read, or the loss is no number any more.
    """
    with join_world(config.training.device) as world:
        folder = RunFolder(into, rank=world.rank)
        precision = config.training.precision or choose_precision(world.device)
        mixture = Mixture(
            config.data.train,
            seed=config.training.seed,
            shuffle_buffer=config.data.shuffle_buffer,
            on_rejected=folder.set_aside if world.leads else lambda _: None,  # every process reads every row
        )
        if not world.leads:
            world.wait()  # until the folder is known to be ours
            return _run(config, precision, mixture, folder, world, watcher)
        with folder.opened(_resolved(config, precision, mixture, command)):
            world.wait()
            return _run(config, precision, mixture, folder, world, watcher)


def _run(
    config: ContrastiveConfig,
    precision: TrainingPrecision,
    mixture: Mixture,
    folder: RunFolder,
    world: World,
    watcher: Watcher,
) -> RunResult | None:
    student = _student(config)
    if world.leads:
        folder.check_start(student.start_fingerprint)
    start = merged_parameters(student.module) if config.model.wise_ft else {}
    student.module.to(world.device)
    divided = config.training.fsdp and world.size > 1
    maker = BatchMaker(student, mixture, config.data, seed=config.training.seed, world=world)
    maker.stores, maker.set_aside = _stores(student, config, folder, world), folder.set_aside
    measures = world.leads or divided
    sources = config.data.validation if measures else ()
    validation = tuple(read_validation(source, student, config.data, folder.set_aside) for source in sources)
    if divided:
        student.divide()
    task = ContrastiveTask(student, maker, validation, config, precision, world)
    if world.leads:
        task.show = folder.save_example
    train(task, config.training, folder, world, watcher)
    world.wait()
    if world.leads:
        folder.gather_ledgers()
    state = gather_state(student.module) if divided else None
    if not world.leads:
        return None
    if state is not None:  # a divided module cannot be used by one process alone
        task.student = _student(config)
        task.student.module.load_state_dict(state)
        task.student.module.to(world.device)
    return _finish(task, config, folder, start)


def _student(config: ContrastiveConfig) -> Student:
    """The same model on every process, and whenever the run goes on."""
    torch.manual_seed(config.training.seed)
    return make_student(config.model, _texts(config.data.train), name=config.name, license=config.license)


def _finish(task: ContrastiveTask, config: ContrastiveConfig, folder: RunFolder, start: dict[str, Tensor]) -> RunResult:
    """Choose how far to go back, measure once more, save, report."""
    student = task.student
    student.merge()
    provenance: dict[str, Any] = {
        "nunbit": version("nunbit"),
        "configuration": "config.json of the run",
        "seed": config.training.seed,
        "steps": config.training.steps,
        "training data": ", ".join(Path(source.path).name for source in config.data.train),
    }
    if start and task.validation:
        end = merged_parameters(student.module)

        def measure(alpha: float) -> list[Retrieval]:
            interpolate(student.module, start, end, alpha)
            return task.measure()

        alpha, found = choose_alpha(measure, may_lose=config.model.may_lose)
        interpolate(student.module, start, end, alpha)
        provenance["share of the way from the start (WiSE-FT)"] = alpha
        for number, part in enumerate(task.validation):
            shares = ", ".join(f"{a:g}: {results[number].image_to_text_r1:.1f}" for a, results in found.items())
            provenance[f"image-to-text R@1 of {part.name} by that share"] = shares
    figures = task.evaluate(config.training.steps)
    provenance |= {name: f"{value:.2f}" for name, value in figures.items()}
    student.save(folder.model, provenance)
    return RunResult(folder.model, write_report(folder.path), figures)


def _stores(student: Student, config: ContrastiveConfig, folder: RunFolder, world: World) -> Stores:
    """Let locked towers look at everything once, on the first process."""
    places = folder.path / "features"
    widths = student.locked
    if world.leads and widths.image is not None:
        _fill_images(FeatureStore(places, "images", widths.image), student, config, folder.set_aside)
    if world.leads and widths.text is not None:
        _fill_texts(FeatureStore(places, "texts", widths.text), student, config)
    world.wait()
    return Stores(
        None if widths.image is None else FeatureStore(places, "images", widths.image),
        None if widths.text is None else FeatureStore(places, "texts", widths.text),
    )


def _fill_images(
    store: FeatureStore, student: Student, config: ContrastiveConfig, set_aside: Callable[[Rejected], None]
) -> None:
    encoder = student.locked_image_encoder()

    def compute(records: list[ImageText]) -> tuple[list[str], FloatArray]:
        keys, rows = [], []
        found = encode_stream(encoder, [record.image for record in records])
        for record, item in zip(records, found, strict=True):
            if isinstance(item, Encoded):
                keys.append(record.key)
                rows.append(item.embedding)
            else:
                set_aside(replace(item, path=item.path or record.key))  # bytes have no path
        return keys, np.stack(rows) if rows else np.empty((0, student.locked.image or 0), np.float32)

    records = (item for source in config.data.train for item in open_source(source).records())
    distinct = _distinct((record for record in records if isinstance(record, ImageText)), lambda record: record.key)
    with progress_bar("pictures through the locked tower") as show:
        for done in store.fill(distinct, compute, group=_GROUP):
            show(done, done)


def _fill_texts(store: FeatureStore, student: Student, config: ContrastiveConfig) -> None:
    texts = _distinct(_texts(config.data.train), lambda text: text)
    with progress_bar("texts through the locked tower") as show:
        for done in store.fill(texts, lambda some: (some, student.locked_text_rows(some)), group=_GROUP):
            show(done, done)


def _texts(sources: Sequence[SourceConfig]) -> Iterator[str]:
    """Every text of some sources, in their order; no picture is read."""
    for config in sources:
        source = open_source(config)
        for part in range(source.parts):
            for draft in source.drafts(part):
                if not isinstance(draft, Rejected):
                    yield from draft.texts


def _distinct(items: Iterator[Any], key: Callable[[Any], str]) -> Iterator[Any]:
    seen = set()
    for item in items:
        if (name := key(item)) not in seen:
            seen.add(name)
            yield item


def choose_precision(device: torch.device) -> TrainingPrecision:
    """bfloat16 where the machine multiplies in it."""
    quick = torch.cuda.is_bf16_supported() if device.type == "cuda" else this_machine().has_bf16
    return "bfloat16" if quick else "float32"


def _resolved(
    config: ContrastiveConfig, precision: TrainingPrecision, mixture: Mixture, command: str
) -> dict[str, Any]:
    """What is written into the run's folder, and must be the same when the run goes on."""
    plain: dict[str, Any] = to_plain(config)
    plain["training"] |= {"precision": precision}
    opened = [open_source(source) for source in config.data.validation]
    validation = {source.name: source.signature() for source in opened}
    if len(validation) < len(opened):
        message = f"two validation sources are called {next(iter(validation))!r}"
        raise ConfigError(message, hint="give each a name: {path: ..., name: ...}")
    return plain | {
        "command": command or " ".join(sys.argv),
        "data_fingerprint": mixture.signature(),
        "validation_fingerprints": validation,
        "versions": package_versions(),
    }


def package_versions() -> dict[str, str]:
    """What a run was made with, for its folder."""
    return {
        "nunbit": version("nunbit"),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": str(this_machine()),
    }
