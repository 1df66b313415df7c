"""A model and the name of an engine → an encoder that computes with it.

``auto`` takes the quickest engine that answers as torch in float32 does: a GPU where torch can use one, else what
`prepare` found to be the quickest on this machine, else torch. What was found is kept, so that the next process needs
neither torch nor the weights.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nunbit.config import from_plain
from nunbit.durable import only_writer
from nunbit.encode import Encoder, EncoderInfo, EngineInfo
from nunbit.engine.machine import Machine, this_machine
from nunbit.engine.names import AUTO, ONNX, OPENVINO, Precision
from nunbit.engine.preparing import Preparation, prepare
from nunbit.engine.record import (
    WORTH_IT,
    Record,
    TowerRecord,
    engine_folder,
    file_states,
    known_fingerprint,
    read_record,
    remember_fingerprint,
)
from nunbit.engine.towers import CompiledEncoder, CompiledTowers, Parts, Run
from nunbit.errors import EngineRefused, NunbitWarning, UsageError
from nunbit.preprocessing import Preprocessing

_log = logging.getLogger("nunbit")
_BATCH_SIZE = 8


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model that is not loaded yet.

    Attributes:
        name: What the user called it.
        files: All that it is made of.
        load: Loads it with torch, in float32 on the CPU.
        load_on_gpu: Loads it with torch on the first GPU; None where it cannot compute there.
    """

    name: str
    files: Sequence[Path]
    load: Callable[[], Encoder]
    load_on_gpu: Callable[[], Encoder] | None = None


class _Original:
    """The encoder on torch, loaded once for as long as it is needed."""

    def __init__(self, load: Callable[[], Encoder]) -> None:
        self._load = load
        self._encoder: Encoder | None = None

    def __call__(self) -> Encoder:
        if self._encoder is None:
            self._encoder = self._load()
        return self._encoder

    def let_go(self) -> None:
        """Free the memory of its weights."""
        self._encoder = None


def open_engine(source: ModelSource, engine: str, tell: Callable[[str], None] | None = None) -> Encoder:
    """Open a model with an engine, preparing it when that was not done on this machine before.

    Args:
        source: The model.
        engine: One of `nunbit.engine.names.ENGINES` but ``torch``.
        tell: Told in a few words what takes long.

    Raises:
        EngineRefused: The engine that was asked for cannot run this model, or does not agree with torch.
    """
    machine = this_machine()
    if engine == AUTO and machine.gpu and source.load_on_gpu is not None and _torch_has_gpu():
        try:
            return source.load_on_gpu()
        except UsageError as error:  # it is full, or too small
            warnings.warn(NunbitWarning(f"the GPU is left alone: {error.message}"), stacklevel=2)
    load = _Original(source.load)
    if engine == ONNX:
        return _open_onnx(source, load, machine)
    decide = partial(choose, wanted=OPENVINO.get(engine), or_torch=engine == AUTO)
    fingerprint = known_fingerprint(file_states(source.files))
    record = None if fingerprint is None else read_record(fingerprint, machine)
    if record is None or not _ready(record, decide(record), machine):
        wanted = OPENVINO.get(engine)
        how = Preparation(machine, (wanted,) if wanted else (), tell=tell or _log.info)
        try:
            record = prepare_engines(source, load, how, lambda found: _ready(found, decide(found), machine))
        except (OSError, RuntimeError) as error:  # the second is OpenVINO's, for a full disk among others
            if engine != AUTO:
                hint = "is there room in the cache, and may it be written?"
                raise EngineRefused(f"{engine} cannot be prepared: {error}", hint=hint) from error
            note = f"the cache of engines cannot be written ({error}), so torch computes"
            warnings.warn(NunbitWarning(note), stacklevel=2)
            return load()
    chosen = decide(record)
    if chosen.image is not None:
        load.let_go()  # the weights of torch would stay in memory for nothing
        return _open_openvino(source, record, chosen, load, machine)
    if engine == AUTO:
        return load()
    raise EngineRefused(f"{engine} is refused for {source.name}: {chosen.reason}", hint="auto takes one that agrees")


def prepare_engines(
    source: ModelSource, load: Callable[[], Encoder], how: Preparation, enough: Callable[[Record], bool] | None = None
) -> Record:
    """Prepare a model's engines and note which files they belong to. One process prepares, others wait for it.

    Args:
        source: The model.
        load: Gives it, on torch.
        how: As `nunbit.engine.preparing.prepare` takes it.
        enough: Whether a record that is there already will do; None to prepare in any case.
    """
    states = file_states(source.files)  # before they are read: they may change while that lasts
    how.tell(f"preparing {source.name} for this machine, once")
    encoder = load()
    with only_writer(engine_folder(encoder.fingerprint, how.machine).with_suffix(".lock"), source.name, wait=True):
        record = None if enough is None else read_record(encoder.fingerprint, how.machine)
        if record is None or enough is None or not enough(record):
            record = prepare(encoder, how)
    remember_fingerprint(states, encoder.fingerprint)
    return record


def ready_precisions(record: Record, machine: Machine) -> set[Precision]:
    """Precisions of pictures whose files were kept."""
    folder = engine_folder(record.fingerprint, machine)
    checks = record.image.checks if record.image else ()
    return {check.precision for check in checks if _file(folder, "image", check.precision).is_file()}


@dataclass(frozen=True, slots=True)
class Choice:
    """A precision for each tower; None where torch computes. ``reason``: why it does with pictures."""

    image: Precision | None
    text: Precision | None
    reason: str = ""


def choose(record: Record, wanted: Precision | None = None, *, or_torch: bool = True) -> Choice:
    """The quickest of what agrees with torch: what ``auto`` takes, unless told otherwise.

    Where torch computes pictures it computes texts, too.

    Args:
        record: What was found out.
        wanted: Of pictures, when one precision was asked for.
        or_torch: Torch may compute where nothing is quicker.
    """

    def least(tower: TowerRecord) -> float:
        return WORTH_IT * tower.torch_rate if or_torch else 0

    if record.image is None:
        return Choice(None, None, record.problem)
    if wanted is None:
        found = record.image.quickest(at_least=least(record.image))
        reason = "; ".join(
            f"{check.precision}: {check.refused or 'slower than torch'}" for check in record.image.checks
        )
    else:
        found = record.image.find(wanted)
        reason = found.refused if found else "it was never tried"
    if found is None or found.refused:
        return Choice(None, None, reason)
    text = None
    if record.text is not None:
        exact = wanted == "fp32"  # asked for by name, it is for both towers
        text = record.text.find("fp32") if exact else record.text.quickest(at_least=least(record.text))
    return Choice(found.precision, None if text is None or text.refused else text.precision, reason)


def _ready(record: Record, choice: Choice, machine: Machine) -> bool:
    """Tell whether the files that a choice needs were kept."""
    folder = engine_folder(record.fingerprint, machine)
    needed = [
        _file(folder, name, precision)
        for name, precision in (("image", choice.image), ("text", choice.text))
        if precision
    ]
    return all(path.is_file() and path.with_suffix(".bin").is_file() for path in needed)


def _file(folder: Path, tower: str, precision: Precision) -> Path:
    """Where a tower lies; bfloat16 is computed from the float32 weights."""
    return folder / f"{tower}-{'int8' if precision == 'int8' else 'fp32'}.xml"


def _open_openvino(source: ModelSource, record: Record, choice: Choice, load: _Original, machine: Machine) -> Encoder:
    from nunbit.engine.openvino_models import CompiledModel

    assert choice.image is not None
    folder = engine_folder(record.fingerprint, machine)

    def compiled(tower: str, precision: Precision, streams: int) -> Callable[[], Run]:
        path = _file(folder, tower, precision)
        return lambda: CompiledModel(path, precision, machine, streams=streams, cache=folder / "compiled")

    parts = Parts(
        image=compiled("image", choice.image, machine.streams),
        text=None if choice.text is None else compiled("text", choice.text, 1),
        original=load,
        tokenizer=folder / "tokenizer",
    )
    texts = choice.text or ("torch" if record.tokenizer else "numpy")
    name = f"openvino (pictures {choice.image}, texts {texts})"
    return _encoder(source, record, parts, EngineInfo(name, batch_size=_BATCH_SIZE, concurrency=machine.streams))


def _open_onnx(source: ModelSource, load: _Original, machine: Machine) -> Encoder:
    from nunbit.engine.onnx_engine import IMAGE, TEXT, OnnxModel, onnx_files, onnx_record, write_onnx_files

    fingerprint = known_fingerprint(file_states(source.files))
    folder = None if fingerprint is None else onnx_files(fingerprint)
    if folder is None:
        states, encoder = file_states(source.files), load()
        folder = onnx_files(encoder.fingerprint) or write_onnx_files(encoder)
        remember_fingerprint(states, encoder.fingerprint)
        load.let_go()
    found = folder
    parts = Parts(
        image=lambda: OnnxModel(found / IMAGE, threads=machine.cores),
        text=lambda: OnnxModel(found / TEXT, threads=machine.cores),
        original=load,
        tokenizer=found,
    )
    return _encoder(source, onnx_record(found / IMAGE), parts, EngineInfo(ONNX, batch_size=_BATCH_SIZE))


def _encoder(source: ModelSource, record: Record, parts: Parts, engine: EngineInfo) -> Encoder:
    preprocessing = from_plain(Preprocessing, record.preprocessing, where="engine.json: preprocessing")
    info = EncoderInfo(source.name, record.embedding_size, preprocessing, engine)
    return CompiledEncoder(CompiledTowers(record, parts), info)


def _torch_has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
