"""An encoder of torch → engines for this machine: converted, quantized, compared with torch, timed, kept.

Shapes: N check inputs, E embedding.
"""

from __future__ import annotations

import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nunbit.caches import cache_folder
from nunbit.config import to_plain
from nunbit.engine.check_inputs import BATCH, TEXTS, pixel_batches
from nunbit.engine.machine import Machine
from nunbit.engine.names import Precision, refusal
from nunbit.engine.openvino_models import CompiledModel, convert, first_line, import_openvino
from nunbit.engine.quantize import observe, quantize
from nunbit.engine.record import (
    DRAFT,
    FORMAT_VERSION,
    Check,
    Record,
    Tower,
    TowerRecord,
    engine_folder,
    versions,
    write_record,
)
from nunbit.errors import EngineRefused, ModelError, NunbitWarning
from nunbit.preprocessing import Preprocessing
from nunbit.text.batches import batches_by_length

if TYPE_CHECKING:
    from nunbit.encode import Encoder
    from nunbit.types import FloatArray

_RUNS = 5
_MOST_BYTES = 20_000_000_000  # of all prepared engines together


@dataclass(frozen=True, slots=True)
class Preparation:
    """How engines are prepared.

    Attributes:
        machine: The one that they are prepared for.
        keep: Precisions of pictures that are kept although another one is the quickest.
        pictures: To calibrate and check on; None for the project's own.
        tell: Told in a few words what is being done.
    """

    machine: Machine
    keep: Collection[Precision] = ()
    pictures: Sequence[Path] | None = None
    tell: Callable[[str], None] = lambda _: None


def prepare(encoder: Encoder, how: Preparation) -> Record:
    """Prepare all engines of an encoder and keep the record.

    What fails becomes part of the record: a precision is refused with a reason, and an encoder that cannot be
    converted at all has a ``problem``.

    Args:
        encoder: On torch, in float32 on the CPU.
        how: Settings.

    Raises:
        UsageError: The pictures given for calibration cannot be used.
        OSError: The cache cannot be written.
    """
    with tempfile.TemporaryDirectory(dir=cache_folder("engines"), prefix=DRAFT) as name:
        draft = Path(name, "engine")  # whole or not there, whoever else prepares the same
        draft.mkdir()
        record = _prepare(encoder, draft, how)
        write_record(record, draft)
        folder = engine_folder(encoder.fingerprint, how.machine)
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    _tidy(cache_folder("engines"), keep=folder)
    return record


def _tidy(cache: Path, keep: Path) -> None:
    """Delete what was left half done a day ago, and the engines prepared longest ago while all take too much room."""
    folders = [folder for folder in cache.iterdir() if folder.is_dir() and folder.name != "models" and folder != keep]
    room = _MOST_BYTES
    for folder in sorted(folders, key=lambda folder: -folder.stat().st_mtime):
        room -= sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        stale = folder.name.startswith(DRAFT) and folder.stat().st_mtime < time.time() - 86400
        if stale or (room < 0 and not folder.name.startswith(DRAFT)):
            shutil.rmtree(folder, ignore_errors=True)


def _prepare(encoder: Encoder, folder: Path, how: Preparation) -> Record:
    towers: dict[Tower, TowerRecord] = {}
    problem = ""
    try:
        programs = encoder.towers.programs()
        towers["image"] = _prepare_image(encoder, programs["image"], folder, how)
    except ModelError as error:
        programs, problem = {}, error.message
    if "text" in programs:
        with suppress(ModelError):  # torch then embeds texts
            towers["text"] = _prepare_text(encoder, programs["text"], folder, how)
    if encoder.tokenizer is not None:
        (folder / "tokenizer").mkdir()
        encoder.tokenizer.vocabulary.save(folder / "tokenizer")
    return Record(
        format_version=FORMAT_VERSION,
        versions=versions(),
        machine=how.machine.signature,
        fingerprint=encoder.fingerprint,
        embedding_size=encoder.embedding_size,
        logit_scale=encoder.logit_scale,
        logit_bias=encoder.logit_bias,
        preprocessing=encoder.preprocessing.to_dict(),
        tokenizer=None if encoder.tokenizer is None else to_plain(encoder.tokenizer.config),
        calibration="pictures made by formula" if how.pictures is None else ", ".join(map(str, how.pictures)),
        image=towers.get("image"),
        text=towers.get("text"),
        problem=problem,
    )


def _prepare_image(encoder: Encoder, program: Any, folder: Path, how: Preparation) -> TowerRecord:
    assert isinstance(encoder.preprocessing, Preprocessing)  # programs() refuses others
    calibration, checks = pixel_batches(encoder.preprocessing, how.pictures)
    batches = [checks[start : start + BATCH] for start in range(0, len(checks), BATCH)]
    expected = [encoder.encode_pixels(batch) for batch in batches]
    torch_rate = _rate(lambda: encoder.encode_pixels(batches[0]), len(batches[0]))
    how.tell("converting the picture tower")
    model = convert(program, "picture")
    trial = _Trial(how.machine, batches, expected)
    found = [trial.check(model, "fp32")]
    how.tell("trying bfloat16 and int8")
    found.append(trial.check(model, "bf16"))
    quantized = None
    try:
        quantized = quantize(model, observe(model, calibration))
        found.append(trial.check(quantized, "int8"))
    except Exception as error:  # a compiler's, or of a graph of a shape that nobody thought of: not a reason to stop
        found.append(_refused("int8", f"it cannot be quantized: {first_line(error)}"))
    record = TowerRecord(torch_rate, tuple(found))
    best = record.quickest()
    kept = {*how.keep, best.precision if best else None}
    if kept & {"fp32", "bf16"}:
        _save(model, folder / "image-fp32.xml")
    if "int8" in kept and quantized is not None:
        _save(quantized, folder / "image-int8.xml")
    return record


def _prepare_text(encoder: Encoder, program: Any, folder: Path, how: Preparation) -> TowerRecord:
    tokenizer = encoder.tokenizer
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NunbitWarning)  # nobody wrote these texts; a short context cuts some
        parts = list(batches_by_length(tokenizer(TEXTS), tokenizer.config))
        reference = encoder.encode_text(TEXTS)
        torch_rate = _rate(lambda: encoder.encode_text(TEXTS), len(TEXTS))
    expected = [reference[numbers] for numbers, _ in parts]
    how.tell("converting the text tower")
    model = convert(program, "text")
    trial = _Trial(how.machine, [ids for _, ids in parts], expected)
    found = (trial.check(model, "fp32"), trial.check(model, "bf16"))
    _save(model, folder / "text-fp32.xml")
    return TowerRecord(torch_rate, found)


class _Trial:
    """Check inputs of one tower, and torch's answers."""

    def __init__(self, machine: Machine, inputs: Sequence[Any], expected: Sequence[FloatArray]) -> None:
        self._machine = machine
        self._inputs = inputs
        self._expected = np.concatenate(expected)

    def check(self, model: Any, precision: Precision) -> Check:
        """Run a model on all check inputs, compare, and time it."""
        if precision == "bf16" and not self._machine.has_bf16:
            return _refused(precision, "this processor has no bfloat16 products")
        try:
            compiled = CompiledModel(model, precision, self._machine, streams=1)
            rows = np.concatenate([compiled(batch) for batch in self._inputs])
        except (RuntimeError, EngineRefused) as error:
            return _refused(precision, first_line(error))
        length = np.linalg.norm(rows, axis=1) * np.linalg.norm(self._expected, axis=1)
        cosines = np.einsum("nd,nd->n", rows, self._expected) / np.maximum(length, 1e-12)
        mean, lowest = float(cosines.mean()), float(cosines.min())
        refused = refusal(mean, lowest, precision)
        rate = _rate(lambda: [compiled(batch) for batch in self._inputs], len(self._expected))
        return Check(precision, mean, lowest, rate, refused)


def _refused(precision: Precision, reason: str) -> Check:
    return Check(precision, 0.0, 0.0, 0.0, reason)


def _rate(run: Callable[[], object], count: int) -> float:
    """Inputs a second, at the quickest of a few runs: others may be disturbed."""
    run()
    best = float("inf")
    for _ in range(_RUNS):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return count / best


def _save(model: Any, path: Path) -> None:
    import_openvino().save_model(model, str(path), compress_to_fp16=False)
