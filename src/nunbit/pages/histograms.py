"""Histograms as inline SVG: everything, and in front of it a part.

Place in the river: a part of reports.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

_BINS = 24
_WIDTH, _HEIGHT, _FLOOR = 360, 150, 120  # of a histogram; the floor is where bars stand


@dataclass(frozen=True, slots=True)
class Histogram:
    """One histogram: everything, and in front of it what stays.

    Attributes:
        title: What is counted.
        every: The values of all.
        kept: Some of them, such as those that stay; drawn in front.
        logarithmic: Whether bins grow with the values.
        digits: After the decimal point, on the axis.
        line: A value that is marked, within those of all.
    """

    title: str
    every: Sequence[float]
    kept: Sequence[float]
    logarithmic: bool = False
    digits: int = 0
    line: float | None = None


def draw_histogram(histogram: Histogram) -> str:
    """One histogram as a figure; nothing when there is no value."""
    values = np.asarray(histogram.every, np.float64)
    if len(values) == 0:
        return ""
    edges = _edges(values, histogram.logarithmic)
    behind = np.histogram(values, edges)[0]
    front = np.histogram(np.asarray(histogram.kept, np.float64), edges)[0]
    scale, step = (_FLOOR - 8) / max(int(behind.max()), 1), _WIDTH / (len(edges) - 1)
    bars = []
    for name, counts in (("all", behind), ("kept", front)):
        for place, count in enumerate(counts.tolist()):
            if count:
                span = f"{edges[place]:.{histogram.digits}f} to {edges[place + 1]:.{histogram.digits}f}"
                bars.append(
                    f'<rect class="{name}" x="{place * step + 1:.1f}" y="{_FLOOR - count * scale:.1f}" '
                    f'width="{step - 2:.1f}" height="{count * scale:.1f}"><title>{span}: {count:,}</title></rect>'
                )
    ticks = "".join(
        f'<text x="{place * step:.0f}" y="{_FLOOR + 18}" text-anchor="{anchor}">'
        f"{edges[place]:,.{histogram.digits}f}</text>"
        for place, anchor in ((0, "start"), ((len(edges) - 1) // 2, "middle"), (len(edges) - 1, "end"))
    )
    if histogram.line is not None:
        x = float(np.interp(histogram.line, edges, np.arange(len(edges)) * step))
        bars.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{_FLOOR}"/>')
    title = html.escape(histogram.title)
    return (
        f'<figure class="plot"><figcaption>{title}</figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{title}">{"".join(bars)}'
        f'<line x1="0" x2="{_WIDTH}" y1="{_FLOOR}" y2="{_FLOOR}"/>{ticks}</svg></figure>\n'
    )


def _edges(values: npt.NDArray[np.float64], logarithmic: bool) -> npt.NDArray[np.float64]:
    low, high = float(values.min()), float(values.max())
    if high <= low:
        return np.linspace(low - 0.5, low + 0.5, _BINS + 1)
    if logarithmic and low > 0:
        return np.exp(np.linspace(math.log(low), math.log(high), _BINS + 1)).clip(low, high)
    return np.linspace(low, high, _BINS + 1)
