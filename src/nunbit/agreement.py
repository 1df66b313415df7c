"""Do the engines of a model agree with torch where it matters: on how often pictures are named right?

Place in the river: above `nunbit.zero_shot`. Cosines say how near embeddings are; whether a label changes its place is
seen on pictures whose class is known.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nunbit.engine.machine import this_machine
from nunbit.engine.names import TOP1_TOLERANCE, TORCH, Precision
from nunbit.engine.opening import ModelSource, open_engine, prepare_engines, ready_precisions
from nunbit.engine.preparing import Preparation
from nunbit.engine.record import Record, file_states, known_fingerprint, read_record, refuse
from nunbit.zero_shot import zero_shot

ALL: tuple[Precision, ...] = ("fp32", "bf16", "int8")


@dataclass(frozen=True, slots=True)
class EngineAccuracy:
    """Zero-shot accuracy with one engine: top-1 out of 100, and the seconds that it took."""

    engine: str
    top1: float
    seconds: float


def engine_record(
    source: ModelSource,
    *,
    pictures: Sequence[Path] | None = None,
    again: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Record:
    """What is known about a model's engines on this machine; found out now, with all of them kept, when it is not.

    Args:
        source: The model.
        pictures: To calibrate and check on, which finds it out again; None for the project's own.
        again: Find it out again.
        tell: Told in a few words what is being done.

    Raises:
        UsageError: Fewer than 8 of ``pictures`` can be read.
    """
    machine, anew = this_machine(), again or bool(pictures)
    fingerprint = known_fingerprint(file_states(source.files))

    def enough(record: Record) -> bool:
        good = {check.precision for check in record.image.checks if not check.refused} if record.image else set()
        return good <= ready_precisions(record, machine)

    found = None if anew or fingerprint is None else read_record(fingerprint, machine)
    if found is not None and enough(found):
        return found
    return prepare_engines(
        source, source.load, Preparation(machine, ALL, pictures, tell), enough=None if anew else enough
    )


def compare_accuracy(
    source: ModelSource,
    record: Record,
    folder: str | os.PathLike[str],
    *,
    templates: str = "none",
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[Record, list[EngineAccuracy]]:
    """Measure every engine that agrees by cosine on a folder of classes; refuse those that lose or win too much.

    An engine whose top-1 accuracy is more than `TOP1_TOLERANCE` points from torch's is refused from now on.

    Args:
        source: The model.
        record: Of its engines.
        folder: As `nunbit.zero_shot.zero_shot` takes it.
        templates: As `nunbit.zero_shot.zero_shot` takes them.
        tell: Told in a few words what is being done.

    Returns:
        The record as it is afterwards, and the accuracies, torch's first.

    Raises:
        UsageError: The folder holds no classes, or no readable picture.
    """
    tell(f"naming the pictures of {folder} with torch")
    reference = zero_shot(source.load(), folder, templates=templates)
    measured = [EngineAccuracy(TORCH, reference.top1, reference.seconds)]
    reasons: dict[Precision, str] = {}
    for check in record.image.checks if record.image else ():
        if check.refused:
            continue
        name = f"openvino-{check.precision}"
        tell(f"the same with {name}")
        found = zero_shot(open_engine(source, name), folder, templates=templates)
        measured.append(EngineAccuracy(name, found.top1, found.seconds))
        if abs(found.top1 - reference.top1) > TOP1_TOLERANCE:
            reasons[check.precision] = (
                f"zero-shot top-1 on {folder} is {found.top1:.1f}, torch's is {reference.top1:.1f}"
            )
    return refuse(record.fingerprint, reasons, this_machine()) or record, measured
