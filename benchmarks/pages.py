"""Result pages: a table, and what it was measured on, with and how."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from side_by_side import Ratio, Result, best, cosines, ratio

RESULTS = Path(__file__).parent / "results"
OTHERS = ("transformers fp32", "transformers bf16")
PACKAGES = ("nunbit", "torch", "openvino", "open_clip_torch", "transformers", "pillow", "numpy")


@dataclass(slots=True)
class Page:
    """What is found out about one question.

    Attributes:
        name: Of the file, after the date.
        question: In words, with what is compared.
        parts: Paragraphs and tables, in order.
        wrong: What disagrees; the script fails when there is any.
    """

    name: str
    question: str
    parts: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    load_before: float = field(default_factory=lambda: os.getloadavg()[0])

    def add(self, part: str) -> None:
        """Put a paragraph or a table at the end."""
        self.parts.append(part)

    def close(self, *, to_file: bool) -> None:
        """Write the page, or print it.

        Raises:
            SystemExit: Answers disagree.
        """
        wrong = [f"**{words}**" for words in self.wrong]
        text = "\n\n".join([f"# {self.question}", _circumstances(self.load_before), *self.parts, *wrong]) + "\n"
        if to_file:
            RESULTS.mkdir(exist_ok=True)
            path = RESULTS / f"{datetime.date.today()}-{self.name}.md"
            path.write_text(text, encoding="utf-8")
            print(f"wrote {os.path.relpath(path)}", file=sys.stderr)
        else:
            print(text)
        if self.wrong:
            raise SystemExit("\n".join(self.wrong))


def _circumstances(load_before: float) -> str:
    from nunbit.engine.machine import this_machine

    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in PACKAGES)
    given = [word for word in sys.argv[1:] if word != "--page"]
    command = shlex.join(["python", os.path.relpath(sys.argv[0]), *given])
    return (
        f"{datetime.date.today()}, {this_machine()} used of {os.cpu_count()}; load average {load_before:.1f} before, "
        f"{os.getloadavg()[0]:.1f} after.\nPython {sys.version.split()[0]}, {versions}.\n\n`{command}`"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


@dataclass(frozen=True, slots=True)
class Share:
    """What one item costs in products, and the ceilings: for the column of a tower's share."""

    flops: float
    ceilings: dict[str, dict[str, float]]

    def percent(self, result: Result) -> float:
        """The share of the ceiling of the precision that the peer computes with."""
        return 1e-7 * self.flops * result.rate / max(self.ceilings[result.peer.precision].values())

    def of(self, result: Result) -> str:
        """The same with its precision, in words."""
        precision = result.peer.precision
        return f"{self.percent(result):.0f} % of {precision}" if precision in self.ceilings else ""

    def words(self) -> str:
        """The ceilings, and an item's cost."""
        by_library = {
            precision: ", ".join(f"{name} {rate:,.0f}" for name, rate in found.items())
            for precision, found in self.ceilings.items()
        }
        rates = "; ".join(f"{precision}: {found}" for precision, found in by_library.items())
        item = f"One item takes {1e-9 * self.flops:.2f} GFLOP."
        return f"Measured products of matrices, GFLOP/s: {rates}. The higher one is the ceiling. {item}"


def compared(results: Sequence[Result], base: Result, unit: str, share: Share | None = None) -> str:
    """The table of one question: rate, ratio to the base, share, agreement, memory."""
    columns: list[tuple[str, Callable[[Result], str]]] = [
        ("", lambda result: result.name + (" (base)" if result is base else "")),
        (f"{unit}/s", lambda result: number(result.rate)),
        ("times the base (lowest to highest)", lambda result: str(ratio(result, base))),
    ]
    for start in OTHERS:
        if any(result.name.startswith(start) for result in results):
            other = best(results, start)
            columns.append(
                (f"times {start}, its best", lambda result, other=other: f"{ratio(result, other).middle:.2f}")
            )
    if share is not None:
        columns.append(("share of ceiling", share.of))
    if base.last.rows is not None:
        columns.append(("cosine to base, mean / lowest", lambda result: _agreement(result, base)))
    if any(result.last.whole is not None for result in results):
        columns.append(("whole process, s", lambda result: number(result.most("whole"))))
    if any(result.last.peak_mb is not None for result in results):
        columns.append(("peak MB", lambda result: megabytes(result.most("peak_mb"))))
        columns.append(("of it extra", lambda result: megabytes(result.most("extra_mb"))))
    return table([head for head, _ in columns], [[cell(result) for _, cell in columns] for result in results])


def bar(question: str, found: Ratio, limit: float, *, at_most: bool = False) -> str:
    """One line that says whether a bar is met."""
    met = found.middle <= limit if at_most else found.middle >= limit
    kind = "at most" if at_most else "at least"
    return f"Bar, {question}: {kind} {limit:g} times. Found {found}: {'met' if met else 'not met'}."


def number(value: float | None) -> str:
    """Three digits, or nothing."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def megabytes(value: float | None) -> str:
    """Whole ones, or nothing."""
    return "" if value is None else f"{value:,.0f}"


def _agreement(result: Result, base: Result) -> str:
    if result.last.rows is None or base.last.rows is None:
        return ""
    found = cosines(result.last.rows, base.last.rows)
    return f"{found.mean():.5f} / {found.min():.5f}"
