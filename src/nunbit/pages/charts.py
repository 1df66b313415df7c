"""Curves as inline SVG: any number of steps, a bounded number of points.

Place in the river: a part of reports. A chart is text that needs no script; what `page.js` shows under the pointer lies
in the attribute ``data-lines``.

Shapes: N values, B buckets.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from nunbit.picture_files import one_line

if TYPE_CHECKING:
    import numpy.typing as npt

    Numbers: TypeAlias = npt.NDArray[np.float64]

BUCKETS = 240
"""Points of a line; with more values, neighbors become one point with a range."""

_WIDTH, _HEIGHT = 480, 222
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 12, 10, 24
_WIDE_RANGE = 100  # largest value / smallest from which the axis is logarithmic
_TICKS = 5
_RANGED = ("faint", "strong")
_SHORT_NAME = 6  # characters of an axis's name that find room before its first tick


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart.

    Attributes:
        name: For the legend.
        steps: (N,) in ascending order.
        values: (N,) within the range of float32; NaN where the number was not finite.
        kind: A ``faint`` or ``strong`` line with the range of the values that share a point, a ``smooth`` one without,
            a dashed ``guide``, or ``dots``: a line with a dot for each value.
        color: Which of the page's colors.
    """

    name: str
    steps: Numbers
    values: Numbers
    kind: Literal["faint", "strong", "smooth", "guide", "dots"] = "strong"
    color: int = 0


@dataclass(frozen=True, slots=True)
class Chart:
    """What is drawn into one frame.

    Attributes:
        title: What is measured.
        words: One sentence below the chart.
        series: At least one with a finite value.
        unit: Behind numbers.
        x_name: What the steps count.
        from_zero: Begin the axis at 0, for what is an amount. Otherwise it begins where the values do, and is
            logarithmic when the largest is more than a hundred times the smallest.
    """

    title: str
    words: str
    series: tuple[Series, ...]
    unit: str = ""
    from_zero: bool = False
    x_name: str = "step"


@dataclass(frozen=True, slots=True)
class Buckets:
    """Neighboring values joined. All are (B,); low, mean and high are NaN where no value was finite.

    Attributes:
        first: Lowest step.
        last: Highest step.
        low: Smallest value.
        mean: Of the finite values.
        high: Largest value.
        odd: True where some value was not finite.
    """

    first: Numbers
    last: Numbers
    low: Numbers
    mean: Numbers
    high: Numbers
    odd: npt.NDArray[np.bool_]


def bucketed(series: Series, limit: int = BUCKETS) -> Buckets:
    """Join neighbors where there are more values than ``limit``, so that no peak is lost; else each stays alone."""
    steps, values = series.steps, series.values
    if len(steps) <= limit:
        starts = np.arange(len(steps))
    else:
        place = np.minimum((steps - steps[0]) * (limit / max(steps[-1] - steps[0], 1)), limit - 1).astype(int)
        starts = np.flatnonzero(np.diff(place, prepend=-1))
    finite = np.isfinite(values)
    counts = np.add.reduceat(finite.astype(float), starts)
    sums = np.add.reduceat(np.where(finite, values, 0.0), starts)
    ends = np.append(starts[1:], len(steps))
    return Buckets(
        first=steps[starts],
        last=steps[ends - 1],
        low=np.fmin.reduceat(values, starts),
        mean=np.divide(sums, counts, out=np.full(len(starts), np.nan), where=counts > 0),
        high=np.fmax.reduceat(values, starts),
        odd=counts < ends - starts,
    )


def moving_average(values: Numbers) -> Numbers:
    """Mean (N,) of the finite values around each place: a fiftieth of all, or five. NaN where there is none."""
    finite = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    reach = max(5, len(values) // 50) // 2
    starts = np.maximum(np.arange(len(values)) - reach, 0)
    ends = np.minimum(np.arange(len(values)) + reach + 1, len(values))
    amount = counts[ends] - counts[starts]
    mean = np.full(len(values), np.nan)
    np.divide(sums[ends] - sums[starts], amount, out=mean, where=amount > 0)
    return mean


def draw_chart(chart: Chart) -> str:
    """Draw one chart as an HTML figure."""
    lines = [(series, bucketed(series)) for series in chart.series]
    axes = _axes(chart, [points for _, points in lines])
    drawn = "".join(part for series, points in lines for part in _line(series, points, axes))
    hover = json.dumps([_hover(series, points, axes, chart.unit) for series, points in lines], ensure_ascii=False)
    note = " Logarithmic axis." if axes.logarithmic else ""
    return (
        f'<figure class="chart"><h3>{_text(chart.title)}</h3>{_legend(chart.series, chart.unit)}'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{_text(_summary(chart, lines))}"'
        f' data-x="{_text(chart.x_name)}"'
        f" data-lines='{escape(hover, quote=False).replace(chr(39), '&#x27;')}'>"
        f"{''.join(_frame(axes, chart))}{drawn}</svg>"
        f"<figcaption>{_text(chart.words)}{note}</figcaption></figure>\n"
    )


def shown_number(value: float, unit: str = "") -> str:
    """A number of four digits, with its unit, as people write it."""
    size = abs(value)
    if not math.isfinite(value):
        return "not finite"
    if size >= 1e9 or 0 < size < 1e-3:
        mantissa, exponent = f"{value:.3e}".split("e")
        text = f"{float(mantissa):g}e{int(exponent)}"
    elif size < 999.95:
        text = f"{value:.4g}"
    else:
        text = f"{value:,.0f}" if size < 999_950 else f"{value / 1e6:.4g}M"
    return f"{text.replace('-', '−', 1) if value < 0 else text}{' ' + unit if unit else ''}"


@dataclass(frozen=True, slots=True)
class _Axes:
    """Where steps, from 0 on, and values lie in the frame."""

    x_high: float
    y_low: float
    y_high: float
    logarithmic: bool

    def x(self, steps: Numbers) -> Numbers:
        return _LEFT + steps / self.x_high * (_WIDTH - _LEFT - _RIGHT)

    def y(self, values: Numbers) -> Numbers:
        low, high = self.y_low, self.y_high
        share = np.log(values / low) / math.log(high / low) if self.logarithmic else (values - low) / (high - low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _axes(chart: Chart, lines: Sequence[Buckets]) -> _Axes:
    x_high = max(1.0, *(float(points.last[-1]) for points in lines))
    low = min(float(np.nanmin(points.low)) for points in lines)
    high = max(float(np.nanmax(points.high)) for points in lines)
    logarithmic = not chart.from_zero and low > 0 and high / low > _WIDE_RANGE
    if logarithmic:
        return _Axes(x_high, low / 1.2, high * 1.2, logarithmic=True)
    if chart.from_zero:
        low, high = min(low, 0.0), high or 1.0
    if high - low <= max(abs(low), abs(high)) * 1e-9:
        low, high = low - (abs(low) / 10 or 1), high + (abs(high) / 10 or 1)
    ticks = _round_steps(low, high)
    return _Axes(x_high, min(low, ticks[0]), max(high, ticks[-1]), logarithmic=False)


def _round_steps(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten, from the one at or below ``low`` to the one at or above ``high``."""
    rough = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    size = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return [number * size for number in range(math.floor(low / size + 1e-9), math.ceil(high / size - 1e-9) + 1)]


def _y_ticks(axes: _Axes) -> list[float]:
    if not axes.logarithmic:
        return [tick for tick in _round_steps(axes.y_low, axes.y_high) if axes.y_low <= tick <= axes.y_high]
    lowest, highest = math.ceil(math.log10(axes.y_low)), math.floor(math.log10(axes.y_high))
    every = math.ceil((highest - lowest + 1) / (_TICKS + 1))
    return [10.0**power for power in range(lowest, highest + 1, every)]


def _frame(axes: _Axes, chart: Chart) -> Iterator[str]:
    unit = chart.unit
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    for tick in _y_ticks(axes):
        y = float(axes.y(np.array(tick)))
        yield f'<path class="grid" d="M{_LEFT} {y:.1f}H{right}"/>'
        yield f'<text class="y" x="{_LEFT - 7}" y="{y + 4:.1f}">{_tick(tick, axes.y_high, unit)}</text>'
    for tick in _round_steps(0.0, axes.x_high):
        if tick <= axes.x_high and tick == round(tick):
            x = float(axes.x(np.array(tick)))
            yield f'<path class="tick" d="M{x:.1f} {bottom}v4"/>'
            yield f'<text x="{x:.1f}" y="{bottom + 18}">{_tick(tick, axes.x_high)}</text>'
    yield f'<path class="axis" d="M{_LEFT} {bottom}H{right}"/>'
    x, y = (_LEFT - 18, bottom + 18) if len(chart.x_name) <= _SHORT_NAME else (right, bottom - 6)
    yield f'<text class="y" x="{x}" y="{y}">{_text(chart.x_name)}</text>'


def _tick(value: float, largest: float, unit: str = "") -> str:
    """Short, for an axis; only % stands behind every number."""
    text = f"{value / 1000:.4g}k" if value and 1e4 <= largest < 1e6 else shown_number(value)
    return f"{text}%" if unit == "%" else text


def _line(series: Series, points: Buckets, axes: _Axes) -> Iterator[str]:
    x, style = axes.x((points.first + points.last) / 2), f"c{series.color}"
    with np.errstate(invalid="ignore"):
        y, low, high = axes.y(points.mean), axes.y(points.low), axes.y(points.high)
    path = []
    for start, end in _runs(points.mean):
        shape = "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x[start:end], y[start:end], strict=True))
        path.append(f"M{shape}" if end - start > 1 else f"M{shape}h0")  # a line of no length has round ends: a dot
        if series.kind in _RANGED and (points.first != points.last).any():
            upper = "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x[start:end], high[start:end], strict=True))
            lower = "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x[start:end][::-1], low[start:end][::-1], strict=True))
            yield f'<path class="band {style}" d="M{upper}L{lower}Z"/>'
    yield f'<path class="{series.kind} {style}" d="{"".join(path)}"/>'
    if len(x) == 1 or (series.kind == "dots" and len(x) <= BUCKETS / 4):
        for a, b in zip(x, y, strict=True):
            if math.isfinite(b):
                yield f'<circle class="{style}" cx="{a:.1f}" cy="{b:.1f}" r="2.8"/>'
    if points.odd.any() and series.kind in ("faint", "strong", "dots"):
        marks = "".join(f"M{a:.1f} {_HEIGHT - _BOTTOM}l-3.5 -7h7Z" for a in x[points.odd])
        yield f'<path class="odd" d="{marks}"/>'


def _runs(values: Numbers) -> Iterator[tuple[int, int]]:
    """Start and end of each stretch of finite values."""
    edges = np.diff(np.concatenate([[False], np.isfinite(values), [False]]).astype(int))
    yield from zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True)


def _hover(series: Series, points: Buckets, axes: _Axes, unit: str) -> dict[str, object]:
    """What `page.js` shows: places in the frame, steps and values as people read them."""
    words, spans = [], []
    for first, last, low, mean, high in zip(
        points.first, points.last, points.low, points.mean, points.high, strict=True
    ):
        joined = series.kind in _RANGED and low < high
        words.append(shown_number(mean, unit) + (f" ({shown_number(low)} to {shown_number(high)})" if joined else ""))
        spans.append(f"{first:,.0f}" if first == last else f"{first:,.0f} to {last:,.0f}")
    style = f"c{series.color} faint" if series.kind == "faint" else f"c{series.color}"
    x = axes.x((points.first + points.last) / 2).round(1).tolist()
    return {"name": one_line(series.name), "style": style, "x": x, "values": words, "steps": spans}


def _legend(lines: Sequence[Series], unit: str) -> str:
    """Names and last values."""
    entries = []
    for series in lines:
        if len(lines) > 1 and series.kind == "faint":
            entries.append(f'<span><i class="swatch faint c{series.color}"></i>{_text(series.name)}</span>')
            continue
        value = _text(shown_number(series.values[np.isfinite(series.values)][-1], unit))
        name = f'<i class="swatch c{series.color}"></i>{_text(series.name)} ' if len(lines) > 1 else ""
        entries.append(f"<span>{name}<b>{value}</b></span>")
    return f'<p class="legend">{"".join(entries)}</p>'


def _summary(chart: Chart, lines: Sequence[tuple[Series, Buckets]]) -> str:
    """The chart in words, for who does not see it."""
    parts = []
    for series, points in lines:
        good = np.flatnonzero(np.isfinite(points.mean))
        means = (shown_number(value, chart.unit) for value in points.mean[good[[0, -1]]])
        places = (f"{chart.x_name} {value:,.0f}" for value in points.first[good[[0, -1]]])
        start, end = (f"{mean} at {place}" for mean, place in zip(means, places, strict=True))
        lowest, highest = np.nanmin(points.low), np.nanmax(points.high)
        between = f"between {shown_number(lowest)} and {shown_number(highest)}"
        parts.append(f"{series.name} from {start} to {end}, {between}")
    return f"{chart.title}: {'; '.join(parts)}."


def _text(text: str) -> str:
    return escape(one_line(text))
