"""Peers that do the same work in turns, A B C A B C ..., so that whatever disturbs the machine disturbs them alike.

A turn is work in this process (`timed`) or a child process that reports about itself (`child`). The first turn of each
peer warms up and does not count. A ratio is taken within a round; its spread is the lowest and the highest of the
rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from resident import Watch

if TYPE_CHECKING:
    from nunbit.types import FloatArray

HERE = Path(__file__).parent
AGREE = 0.999
"""The least mean cosine to the answers of the baseline. What is below is reported, and the script fails."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one peer did in one turn.

    Attributes:
        count: Items that were done.
        seconds: For them.
        rows: (N, E), the answers in the order of the inputs; None where there are none to compare.
        whole: Seconds of the whole process; None for work in this one.
        peak_mb: Most resident memory of the process; None for work in this one.
        base_mb: Resident memory of the process when its libraries were imported, before it did anything.
    """

    count: int
    seconds: float
    rows: FloatArray | None = None
    whole: float | None = None
    peak_mb: float | None = None
    base_mb: float | None = None

    @property
    def extra_mb(self) -> float | None:
        """Peak less base."""
        return None if self.peak_mb is None or self.base_mb is None else self.peak_mb - self.base_mb


@dataclass(frozen=True, slots=True)
class Peer:
    """A name, what it does in a turn, and what it computes with: ``fp32``, ``bf16``, ``int8`` or nothing."""

    name: str
    turn: Callable[[], Turn]
    precision: str = ""


@dataclass(slots=True)
class Result:
    """All turns of a peer that count."""

    peer: Peer
    turns: list[Turn] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The peer's."""
        return self.peer.name

    @property
    def rates(self) -> list[float]:
        """Items a second, by round."""
        return [turn.count / turn.seconds for turn in self.turns]

    @property
    def rate(self) -> float:
        """The median of `rates`."""
        return median(self.rates)

    @property
    def last(self) -> Turn:
        """Its last turn, whose answers are compared."""
        return self.turns[-1]

    def most(self, attribute: str) -> float | None:
        """The most of a figure over the turns; None where it was not taken."""
        values = [value for turn in self.turns if (value := getattr(turn, attribute)) is not None]
        return max(values, default=None)


@dataclass(frozen=True, slots=True)
class Ratio:
    """The median over the rounds, the lowest and the highest."""

    middle: float
    lowest: float
    highest: float

    def __str__(self) -> str:
        return f"{self.middle:.2f} ({self.lowest:.2f} to {self.highest:.2f})"


def ratio(result: Result, base: Result, figure: Callable[[Result], Sequence[float]] = lambda r: r.rates) -> Ratio:
    """How many times a figure of the base, round by round."""
    rounds = [ours / theirs for ours, theirs in zip(figure(result), figure(base), strict=True)]
    return Ratio(median(rounds), min(rounds), max(rounds))


def take_turns(peers: Sequence[Peer], rounds: int, *, warm_up: bool = True) -> list[Result]:
    """Let each peer warm up, then let them take turns."""
    results = [Result(peer) for peer in peers]
    if warm_up:
        for peer in peers:
            tell(f"warming up {peer.name}")
            peer.turn()
    for number in range(rounds):
        for result in results:
            turn = result.peer.turn()
            tell(f"round {number + 1} of {rounds}, {result.name}: {turn.count / turn.seconds:.2f}/s")
            result.turns.append(turn)
    return results


def timed(work: Callable[[], FloatArray]) -> Callable[[], Turn]:
    """A turn in this process; an item a row of the answer."""

    def turn() -> Turn:
        start = time.perf_counter()
        rows = work()
        seconds = time.perf_counter() - start
        return Turn(len(rows), seconds, rows)

    return turn


def child(script: str, *arguments: object, environment: dict[str, str] | None = None) -> Callable[[], Turn]:
    """A turn of a script in ``as_written``.

    It prints one line of JSON, ``{"count", "seconds", "peak_mb", "base_mb"}`` and, where answers are compared,
    ``"rows"``: a file of numpy.
    """

    def turn() -> Turn:
        command = [sys.executable, str(HERE / "as_written" / script), *map(str, arguments)]
        said: dict[str, Any]
        said, whole, peak = whole_process(command, environment)
        rows = np.load(said["rows"]) if "rows" in said else None
        return Turn(said["count"], said["seconds"], rows, whole, max(peak, said["peak_mb"]), said["base_mb"])

    return turn


def whole_process(command: Sequence[str], environment: dict[str, str] | None = None) -> tuple[Any, float, float]:
    """Run a command to its end; what its last line says (JSON), its seconds, and its peak of memory in MB."""
    variables = os.environ | {"PYTHONPATH": str(HERE)} | (environment or {})
    start = time.perf_counter()
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE) as process, Watch(process.pid) as watch:
        said, _ = process.communicate()
        whole = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"{command[1]} failed")
    return json.loads(said.splitlines()[-1]), whole, watch.peak_mb


def cosines(rows: FloatArray, others: FloatArray) -> FloatArray:
    """(N, E), (N, E) → (N,)."""
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(others, axis=1)
    found: FloatArray = np.einsum("nd,nd->n", rows, others) / np.maximum(lengths, 1e-12)
    return found


def disagreements(results: Sequence[Result], base: Result, least: float = AGREE) -> list[str]:
    """Who does not answer as the base does, in words."""
    found = []
    for result in results:
        if result.last.rows is not None and base.last.rows is not None:
            mean = cosines(result.last.rows, base.last.rows).mean()
            if not mean >= least:
                found.append(f"{result.name} disagrees with {base.name}: cosine {mean:.5f}, at least {least} is right")
    return found


def best(results: Sequence[Result], start: str) -> Result:
    """The quickest of those whose name starts so."""
    return max((result for result in results if result.name.startswith(start)), key=lambda result: result.rate)


def pin(cores: int) -> None:
    """Keep to so many cores, before torch and OpenVINO are imported: both count cores when they start."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < cores:
        raise SystemExit(f"this needs {cores} cores, there are {len(allowed)}")
    for thread in os.listdir("/proc/self/task"):  # numpy has started some
        os.sched_setaffinity(int(thread), allowed[-cores:])
    os.environ |= {"OMP_NUM_THREADS": str(cores), "OPENBLAS_NUM_THREADS": str(cores)}
    import torch

    torch.set_num_threads(cores)


def own_cache(scratch: Path, cores: int) -> None:
    """Engines prepared for another number of cores would be prepared anew, so each number has its own cache."""
    os.environ["NUNBIT_CACHE"] = str(scratch / f"cache-{cores}-cores")


def photographs(shared: Path, most: int | None = None) -> list[Path]:
    """COCO's photographs, 461 of mostly 640 x 480."""
    found = sorted((shared / "data" / "coco" / "images").glob("*.jpg"))[:most]
    if not found:
        raise SystemExit(f"no photographs in {shared}/data/coco/images: say where with --shared")
    return found


def links(files: Sequence[Path], count: int, folder: Path) -> Path:
    """A folder with so many links to the files, under names of their own; made if it is not there."""
    done = folder / ".complete"
    if not done.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            target = files[number % len(files)]
            link = folder / f"{number:06}{target.suffix}"
            if not link.is_symlink():
                link.symlink_to(target.resolve())
        done.touch()
    return folder


def parser(purpose: str, *, rounds: int = 5) -> argparse.ArgumentParser:
    """The arguments of every benchmark."""
    from random_models import default_scratch

    made = argparse.ArgumentParser(description=purpose.splitlines()[0])
    made.add_argument("--rounds", type=int, default=rounds, help=f"turns of each peer, {rounds} by default")
    made.add_argument("--scratch", type=Path, default=default_scratch(), help="for models and pictures that are made")
    made.add_argument("--shared", type=Path, default=Path("../shared"), help="the project's shared data")
    made.add_argument("--page", action="store_true", help="write a page into benchmarks/results")
    return made


def tell(words: str) -> None:
    """Show progress, where it is not in the way."""
    print(f"  {words}", file=sys.stderr, flush=True)
