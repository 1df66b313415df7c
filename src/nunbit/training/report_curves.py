"""Which curves a run's metrics become, and what they are called.

Place in the river: a part of the run report, between the metric log and `report_charts`.

Shapes: N values.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nunbit.pages.charts import Chart, Series, moving_average

if TYPE_CHECKING:
    from nunbit.pages.charts import Numbers

VALIDATION = "validation/"
MOST_NAMES = 60
"""Numbers of the log that are looked at; a report of more could not be read."""

_LONGEST_NAME = 80
_SMOOTHED_FROM = 20  # values; fewer are seen one by one
_KINDS = {int, float, type(None)}
_SMALLEST, _LARGEST = 1e-45, 3.4e38
_RECALL = re.compile(r"validation/(?:(?P<data>.+)/)?(?P<side>\w+)_r(?P<k>\d{1,6})", re.DOTALL)
_DIRECTIONS = {"image_to_text": "picture → text", "text_to_image": "text → picture"}


@dataclass(frozen=True, slots=True)
class _Metric:
    """How a number of the log is shown."""

    name: str
    title: str
    words: str
    unit: str = ""
    from_zero: bool = False


_METRICS = (
    _Metric("learning_rate", "Learning rate", "How far a step may move the weights.", from_zero=True),
    _Metric("logit_scale", "Logit scale", "Similarities are multiplied by it before they become probabilities."),
    _Metric("logit_bias", "Logit bias", "Added before each pair is judged by itself."),
    _Metric("gradient_norm", "Gradient norm", "Length of the gradient of all weights together."),
    _Metric("samples_per_second", "Speed", "Pairs that training goes through.", "pairs/s", from_zero=True),
    _Metric("memory_mb", "Memory", "Most memory in use.", "MB", from_zero=True),
    _Metric("image_similarity", "Similarity of different pictures", "Near 1, all get the same embedding."),
    _Metric("text_similarity", "Similarity of different texts", "Near 1, all get the same embedding."),
    _Metric("duplicates", "Duplicates", "Share of a batch whose picture or text is in it twice.", from_zero=True),
    _Metric("samples", "Batch", "Pairs a step.", from_zero=True),
)
_NO_CHART = {
    "step",
    "not_finite",
    "loss",
    "chance_loss",
    "seconds",
    f"{VALIDATION}loss",
    *(metric.name for metric in _METRICS),
}


def column(rows: Sequence[dict[str, Any]], name: str) -> tuple[Numbers, Numbers]:
    """Steps and values, both (N,), of the rows that have something by this name.

    Values are as float32 would have them, in which weights are: NaN where one is no number or beyond its range, and 0
    below.
    """
    found = [row for row in rows if name in row]
    steps = np.array([row["step"] for row in found], float)
    raw = [row[name] for row in found]
    try:
        values = np.array(raw if _KINDS.issuperset(map(type, raw)) else list(map(_number, raw)), float)
    except OverflowError:  # a whole number of hundreds of digits
        values = np.array(list(map(_number, raw)), float)
    size = np.abs(values)
    return steps, np.where(size <= _LARGEST, np.where(size < _SMALLEST, 0.0, values), np.nan)


def make_charts(rows: Sequence[dict[str, Any]]) -> tuple[list[Chart], list[str]]:
    """The charts of a run: loss and validation first; whatever else the log holds last.

    Args:
        rows: In the order of their steps.

    Returns:
        The charts, and the names beyond ``MOST_NAMES``, which have none.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    shown, left_out = names[:MOST_NAMES], names[MOST_NAMES:]
    charts = [*_loss_chart(rows), *_recall_charts(rows, shown)]
    for metric in _METRICS:
        charts += _plain_chart(rows, metric)
    for name in shown:
        if name not in _NO_CHART and not _RECALL.fullmatch(name):
            words = "In validation." if name.startswith(VALIDATION) else "As the trainer wrote it."
            charts += _plain_chart(rows, _Metric(name, _readable(name), words))
    return charts, left_out


def recalls_at_1(rows: Sequence[dict[str, Any]]) -> tuple[Numbers, Numbers]:
    """Steps and means of recall at 1 in validation, both (N,), in percent: as logged, or of the two directions."""
    logged = column(rows, f"{VALIDATION}mean_r1")
    if np.isfinite(logged[1]).any():
        return logged
    columns = [column(rows, f"{VALIDATION}{direction}_r1") for direction in _DIRECTIONS]
    steps = np.unique(np.concatenate([steps for steps, _ in columns]))
    sums, counts = np.zeros(len(steps)), np.zeros(len(steps))
    for at, values in columns:
        place = np.searchsorted(steps, at)
        sums[place] += values
        counts[place] += 1
    complete = counts == sum(len(at) > 0 for at, _ in columns)
    return steps[complete], sums[complete] / counts[complete]


def _loss_chart(rows: Sequence[dict[str, Any]]) -> Iterator[Chart]:
    series = list(_line(rows, "loss", "training"))
    words = "Lower is better."
    if series and len(series[0].values) > _SMOOTHED_FROM:
        smooth = replace(series[0], values=moving_average(series[0].values), kind="smooth")
        series = [replace(series[0], name="as logged", kind="faint"), smooth]
        words += " Faint: as logged, with its range; strong: moving average."
    odd = int((~np.isfinite(column(rows, "loss")[1])).sum())
    if series and odd:
        words += f" {odd:,} losses were not finite; triangles mark them."
    series += [replace(line, kind="guide", color=4) for line in _line(rows, "chance_loss", "guessing")]
    series += [replace(line, kind="dots", color=1) for line in _line(rows, f"{VALIDATION}loss", "validation")]
    if series:
        yield Chart("Loss", words, tuple(series))


def _recall_charts(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> Iterator[Chart]:
    """A chart for each k and each set of validation pairs, with a line for each direction."""
    groups: dict[tuple[int, str], list[Series]] = defaultdict(list)
    for name in names:
        if match := _RECALL.fullmatch(name):
            lines = groups[int(match["k"]), match["data"] or ""]
            label = _DIRECTIONS.get(match["side"], _readable(match["side"]))
            lines += [replace(line, kind="dots", color=len(lines) % 5) for line in _line(rows, name, label)]
    for (k, data), lines in sorted(groups.items(), key=lambda group: group[0]):
        if lines:
            title = f"Validation recall at {k}{', ' if data else ''}{data[:_LONGEST_NAME]}"
            words = f"Share of validation pairs found among the {k} nearest." if k > 1 else "Share found first."
            yield Chart(title, words, tuple(lines), "%", from_zero=True)


def _plain_chart(rows: Sequence[dict[str, Any]], metric: _Metric) -> Iterator[Chart]:
    for line in _line(rows, metric.name, "as logged"):
        shown = replace(line, kind="dots", color=1) if metric.name.startswith(VALIDATION) else line
        yield Chart(metric.title, metric.words, (shown,), metric.unit, metric.from_zero)


def _line(rows: Sequence[dict[str, Any]], name: str, label: str) -> Iterator[Series]:
    """The values under a name; nothing when none of them is finite."""
    steps, values = column(rows, name)
    if np.isfinite(values).any():
        yield Series(label, steps, values)


def _readable(name: str) -> str:
    return name[:_LONGEST_NAME].removeprefix(VALIDATION).replace("_", " ").replace("/", " / ")


def _number(value: Any) -> float:
    return float(value) if type(value) in (int, float) and abs(value) <= _LARGEST else np.nan
