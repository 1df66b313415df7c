"""What a run folder holds, read for the run report.

A run may be at work, or may have been killed: every file may be missing, and what cannot be read is told in the
report's notes instead of keeping the rest from being shown.

Shapes: P pictures, T texts.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nunbit.errors import UsageError
from nunbit.training.lines import read_lines
from nunbit.training.metrics import METRICS, read_metrics
from nunbit.types import Rejected

CONFIG, LEDGER, DIAGNOSIS, EXAMPLES = "config.json", "ledger.jsonl", "diagnosis.jsonl", "examples"

_EXAMPLE = re.compile(r"step-(\d+)\.json")
_MOST_SIDE = 16  # pictures and texts of a matrix


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Something that the trainer noticed: what it is called, in plain words, and what helps."""

    step: int
    problem: str
    words: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Retrieval:
    """The texts nearest to one picture.

    Attributes:
        picture: Its place among the pictures.
        truth: A text of its own.
        top: Text, similarity and whether it is one of the picture's own; the nearest first.
    """

    picture: int
    truth: str
    top: tuple[tuple[str, float, bool], ...]


@dataclass(frozen=True, slots=True)
class Examples:
    """What the model made of a few pictures at one step.

    Attributes:
        step: When.
        matrix: Similarity of each of P pictures with each of T texts, P lists of T numbers; NaN where not finite.
        pictures: Data URIs, P or more.
        texts: T; those of a place and the picture of the same place belong together.
        retrieval: Texts found for pictures.
    """

    step: int
    matrix: list[list[float]]
    pictures: list[str]
    texts: list[str]
    retrieval: list[Retrieval]


@dataclass(slots=True)
class Run:
    """A run folder, read.

    Attributes:
        name: Of the run: what its configuration says, else the folder's.
        config: As it was written.
        rows: The metric log.
        diagnoses: In the order in which they were noticed.
        rejected: Pictures that were set aside.
        examples: The first and the last; one of them, or none.
        notes: What could not be read.
    """

    name: str
    config: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    diagnoses: list[Diagnosis] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    examples: list[Examples] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        UsageError: It holds neither a configuration nor a metric log.
    """
    if not (folder / CONFIG).is_file() and not (folder / METRICS).is_file():
        hint = "give the folder that a training run wrote"
        raise UsageError(f"there is no run in {folder}: neither {CONFIG} nor {METRICS}", hint=hint)
    run = Run(folder.resolve().name)
    _read_config(folder / CONFIG, run)
    run.rows, damaged = read_metrics(folder / METRICS)
    run.rows.sort(key=lambda row: int(row["step"]))
    _note_damaged(run, METRICS, damaged)
    ledger, damaged = read_lines(folder / LEDGER, lambda line: "path" in line and "reason" in line)
    run.rejected = [Rejected(str(o["path"]), str(o["reason"]), str(o.get("detail", ""))) for o in ledger]
    _note_damaged(run, LEDGER, damaged)
    noticed, damaged = read_lines(folder / DIAGNOSIS, lambda line: type(line.get("step")) is int and "problem" in line)
    run.diagnoses = [
        Diagnosis(o["step"], str(o["problem"]), str(o.get("words", "")), str(o.get("remedy", ""))) for o in noticed
    ]
    _note_damaged(run, DIAGNOSIS, damaged)
    _read_examples(folder / EXAMPLES, run)
    return run


def _read_config(path: Path, run: Run) -> None:
    if not path.is_file():
        run.notes.append(f"{CONFIG} is not there")
        return
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        run.notes.append(f"{CONFIG} is not JSON: {error}")
        return
    if not isinstance(content, dict):
        run.notes.append(f"{CONFIG} holds no names and values")
        return
    run.config = content
    if isinstance(content.get("name"), str) and content["name"].strip():
        run.name = content["name"]


def _note_damaged(run: Run, name: str, damaged: list[int]) -> None:
    if damaged:
        more = f" and {len(damaged) - 1:,} further lines" if len(damaged) > 1 else ""
        run.notes.append(f"line {damaged[0]:,}{more} of {name} cannot be understood and is left out")


def _read_examples(folder: Path, run: Run) -> None:
    """Take the first and the last that can be read."""
    found = [(int(match[1]), path) for path in folder.glob("step-*.json") if (match := _EXAMPLE.fullmatch(path.name))]
    found.sort()
    first = _next_examples([path for _, path in found], run)
    last = _next_examples([path for step, path in reversed(found) if first is not None and step > first.step], run)
    run.examples = [examples for examples in (first, last) if examples is not None]


def _next_examples(paths: list[Path], run: Run) -> Examples | None:
    for path in paths:
        try:
            return _parsed_examples(json.loads(path.read_bytes()))
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
            run.notes.append(f"{EXAMPLES}/{path.name} cannot be understood: {type(error).__name__}: {error}")
    return None


def _parsed_examples(content: Mapping[str, Any]) -> Examples:
    texts = [str(text) for text in content["texts"]][:_MOST_SIDE]
    pictures = [str(picture) for picture in content["pictures"]]
    matrix = [[_similarity(value) for value in row][:_MOST_SIDE] for row in content["matrix"]][:_MOST_SIDE]
    if len(matrix) > len(pictures) or any(len(row) != len(texts) for row in matrix):
        raise ValueError(f"a matrix of {len(matrix)} rows for {len(pictures)} pictures and {len(texts)} texts")
    retrieval = [
        Retrieval(
            int(item["picture"]),
            str(item["truth"]),
            tuple((str(text), _similarity(value), bool(right)) for text, value, right in item["top"]),
        )
        for item in content.get("retrieval", ())
    ]
    return Examples(int(content["step"]), matrix, pictures, texts, retrieval)


def _similarity(value: Any) -> float:
    number = math.nan if value is None else float(value)
    return number if math.isfinite(number) else math.nan
