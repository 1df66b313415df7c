"""The report of a study: one page that shows what examples are worth, and where the head goes wrong.

Place in the river: a study → HTML. Numbers are of pictures that taught nothing.

Shapes: N pictures, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from nunbit.adapt.calibration import reliability
from nunbit.adapt.examples import Example
from nunbit.adapt.ladder import wilson
from nunbit.adapt.study import AUTO, Study
from nunbit.head.head import probability_of
from nunbit.pages.charts import Chart, Series, draw_chart
from nunbit.pages.histograms import Histogram, draw_histogram
from nunbit.pages.page import headline, make_page, section, shown_text, table
from nunbit.pages.thumbnails import Thumbnails

if TYPE_CHECKING:
    import numpy.typing as npt

    from nunbit.adapt.rung import Logits

_MOST_CLASSES = 25
"""Of a matrix that is drawn; with more, the pairs below it say what is taken for what."""

_PAIRS, _MISTAKES = 8, 3
_MOST_REJECTED = 30


def report_page(study: Study, name: str, model: str) -> bytes:
    """The page.

    Args:
        study: What was found.
        name: Of the examples.
        model: Of the encoder.
    """
    return make_page(f"{name}: learned from examples", _body(study, name, model))


def _body(study: Study, name: str, model: str) -> Iterator[str]:
    shots = study.fitted.shots.targets.sum(0)
    few, most = int(shots[shots > 0].min()), int(shots.max())
    taught = f"{few}" if few == most else f"{few} to {most}"
    yield (
        f'<header><p class="kind">Learned from examples</p><h1>{shown_text(name, 120)}</h1>'
        f"<p>{shown_text(model)} · {len(shots)} classes · {int(shots.sum())} examples, {taught} a class · measured on "
        f"{len(study.pictures)} {'other pictures' if study.apart else 'of the pictures, which taught nothing'}</p>"
        "</header>\n"
    )
    yield headline(_tiles(study))
    yield from section("Accuracy by shots", _curves(study))
    yield from section("The ladder", _ladder(study))
    yield from section("What probabilities are worth", _probabilities(study))
    yield from section("What is taken for what", _confusions(study))
    yield from section("Unknown", _unknown(study))
    yield from section("Set aside", _set_aside(study))


def _tiles(study: Study) -> Iterator[tuple[str, str, str]]:
    found = study.probabilities
    low, high = wilson(found.accuracy, len(study.pictures))
    yield "Chosen", escape(study.fitted.ladder.best.name), "by held-out examples"
    yield "Accuracy", f"{100 * found.accuracy:.1f} %", f"95 %: {low:.1f} to {high:.1f}"
    words = [value for shots in study.curves.get("zero-shot", {}).values() for value in shots]
    yield "Words alone", f"{np.mean(words):.1f} %" if words else "", "zero-shot"
    yield "Calibration error", f"{100 * found.error:.1f}", f"points; plain softmax {100 * found.plain_error:.1f}"
    if found.reached is not None and found.coverage is not None:
        yield "Answers hold it", f"{100 * found.reached:.0f} %", f"promised {100 * found.coverage:.0f} %"
    if study.unknown:
        areas = np.mean([one.auroc for one in study.unknown]), np.mean([one.plain_auroc for one in study.unknown])
        yield "Unknown, AUROC", f"{areas[0]:.3f}", f"plain softmax {areas[1]:.3f}"


def _curves(study: Study) -> Iterator[str]:
    if not study.curves:
        return
    counts = sorted({count for found in study.curves.values() for count in found})
    if len(counts) > 1:
        series = tuple(
            Series(
                name,
                np.array(sorted(found), np.float64),
                np.array([np.mean(found[count]) for count in sorted(found)]),
                kind="dots" if name != "zero-shot" else "guide",
                color=number % 9,
            )
            for number, (name, found) in enumerate(study.curves.items())
        )
        draws = max(len(values) for found in study.curves.values() for values in found.values())
        words = f"Right answers, mean of {draws} draws of so many examples a class. auto: what the examples chose."
        yield f'<div class="charts">{draw_chart(Chart("Accuracy", words, series, unit="%", x_name="shots"))}</div>'
    columns = ["Rung", *(f"{count} shot{'s' * (count > 1)}" for count in counts)]
    rows = []
    for name, found in study.curves.items():
        values = [found.get(count, []) for count in counts]
        cells = [f"{np.mean(some):.1f} ± {np.std(some):.1f}" if some else "" for some in values]
        rows.append([f"<b>{escape(name)}</b>" if name == AUTO else escape(name), *cells])
    yield table(columns, rows)


def _ladder(study: Study) -> Iterator[str]:
    yield '<p class="lead">On held-out examples of those that taught; seconds are those of the last training.</p>\n'
    rows = []
    for one in study.fitted.ladder.results:
        name = f"<b>{escape(one.name)}</b>" if one is study.fitted.ladder.best else escape(one.name)
        accuracy = "–" if one.accuracy is None else f"{one.accuracy:.1f}"
        interval = "" if one.interval is None else f"{one.interval[0]:.1f} to {one.interval[1]:.1f}"
        rows.append([name, accuracy, interval, f"{one.seconds:.2f}", f"{one.megabytes:.2f}"])
    yield table(["Rung", "Held out, %", "95 %", "Seconds", "MB"], rows)


def _probabilities(study: Study) -> Iterator[str]:
    head, rows, targets = study.fitted.head, study.measured.rows, study.measured.targets
    logits = head.logits(rows)
    lines = [Series("as they should be", np.array([0.0, 100.0]), np.array([0.0, 100.0]), kind="guide", color=8)]
    for number, (name, how) in enumerate((("calibrated", head.calibration), ("plain softmax", None))):
        if number == 0 and how is None:
            continue
        probability = probability_of(logits, how, multi_label=False)
        right = targets[np.arange(len(targets)), probability.argmax(1)]
        bins = reliability(probability.max(1), right)
        sure, hits = (np.array([100 * one[place] for one in bins]) for place in (0, 1))
        lines.append(Series(name, sure, hits, kind="dots", color=number))
    words = "Of answers with about so much probability, so many are right. Each dot joins answers of a bin of 15."
    chart = Chart("How often answers are right", words, tuple(lines), unit="%", from_zero=True, x_name="probability, %")
    yield f'<div class="charts">{draw_chart(chart)}</div>'
    found = study.probabilities
    if found.coverage is not None and found.reached is not None:
        promised = f"{100 * found.coverage:.0f} %"
        reached, plain = 100 * found.reached, 100 * (found.plain_reached or 0)
        yield (
            f"<p>Sets of answers were to hold the right class in {promised} of pictures: they do in {reached:.1f} %, "
            f"with {found.set_size:.1f} answers on average. Sets whose plain probabilities add up to {promised} do in "
            f"{plain:.1f} %, with {found.plain_set_size:.1f}.</p>\n"
        )


@dataclass(frozen=True, slots=True)
class _Pair:
    """A class that is taken for another one, and the pictures of it, those first that the head was surest of."""

    true: int
    said: int
    rows: tuple[int, ...]


def _confusions(study: Study) -> Iterator[str]:
    probability = study.fitted.head.probability(study.measured.rows)
    truth, said = study.measured.targets.argmax(1), probability.argmax(1)
    names = study.fitted.head.classnames
    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, (truth, said), 1)
    if len(names) <= _MOST_CLASSES:
        yield from _matrix(counts, names)
    pairs = _worst(counts, truth, said, probability)
    if not pairs:
        yield "<p>Nothing is taken for anything else.</p>\n"
        return
    yield '<h3>The most frequent mistakes, and an example of what they are taken for</h3><div class="cards">\n'
    thumbnails = Thumbnails()
    examples = study.fitted.examples
    for pair in pairs:
        yield from _mistakes(pair, study, probability, thumbnails, _example_of(names[pair.said], examples))
    yield "</div>\n"


def _matrix(counts: npt.NDArray[np.int64], names: Sequence[str]) -> Iterator[str]:
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    yield '<div class="wide"><div class="scroll">'
    yield f'<table class="matrix" style="--pictures:{len(names)}"><thead><tr><th>is, and is called</th>'
    yield "".join(f'<th scope="col">{shown_text(name, 24)}</th>' for name in names) + "</tr></thead><tbody>\n"
    for row, name in enumerate(names):
        yield f'<tr><th scope="row"><div>{shown_text(name, 60)}</div></th>'
        for column in range(len(names)):
            heat = 100 * shares[row, column]
            style = ["hot" if heat > 55 else "warm", *(["own"] if row == column else [])]
            words = f"{counts[row, column]}" if counts[row, column] else ""
            yield f'<td class="{" ".join(style)}" style="--heat:{heat:.0f}%">{words}</td>'
        yield "</tr>\n"
    yield "</tbody></table></div><p class='lead'>Pictures; the shade is the share of the row.</p></div>\n"


def _worst(
    counts: npt.NDArray[np.int64], truth: npt.NDArray[np.intp], said: npt.NDArray[np.intp], probability: Logits
) -> list[_Pair]:
    wrong = counts * (1 - np.eye(len(counts), dtype=int))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]
    pairs = []
    for true, other in zip(*np.unravel_index(order, wrong.shape), strict=True):
        rows = np.flatnonzero((truth == true) & (said == other))
        if len(rows):
            surest = rows[np.argsort(-probability[rows, other], kind="stable")]
            pairs.append(_Pair(int(true), int(other), tuple(surest.tolist())))
    return pairs


def _mistakes(
    pair: _Pair, study: Study, probability: Logits, thumbnails: Thumbnails, example: Example | None
) -> Iterator[str]:
    names = study.fitted.head.classnames
    times = f"{len(pair.rows)} time{'s' * (len(pair.rows) > 1)}"
    is_called = f"{shown_text(names[pair.true], 60)} is called {shown_text(names[pair.said], 60)}, {times}"
    yield f'<figure class="mistake"><h3>{is_called}</h3><div>'
    for row in pair.rows[:_MISTAKES]:
        picture = study.pictures[row]
        tag = thumbnails.tag(picture.image, picture.name)
        yield f"<figure>{tag}<small>{probability[row, pair.said]:.0%}</small></figure>"
    if example is not None:
        tag = thumbnails.tag(example.image, example.name)
        yield f'<figure class="like">{tag}<small>{shown_text(names[pair.said], 60)}</small></figure>'
    yield "</div></figure>\n"


def _example_of(label: str, examples: Sequence[Example]) -> Example | None:
    return next((one for one in examples if label in one.labels), None)


def _unknown(study: Study) -> Iterator[str]:
    if not study.unknown:
        return
    unknown = study.fitted.head.unknown
    way = unknown.way if unknown is not None else ""
    yield (
        f'<p class="lead">Half of the classes were learned, and pictures of the others came; then the other half. How '
        f"familiar a picture is: {escape(way)}.</p>\n"
    )
    yield '<div class="charts">'
    for number, one in enumerate(study.unknown):
        title = f"Familiarity, half {number + 1}: known in front, unknown behind; the line is the threshold"
        every = [*one.known.tolist(), *one.strange.tolist()]
        yield draw_histogram(Histogram(title, every, one.known.tolist(), digits=2, line=one.threshold))
    yield "</div>\n"
    columns = ["Half", "AUROC", "of the plain softmax", "known, called unknown", "unknown, called so"]
    rows = [
        [f"{number + 1}", f"{one.auroc:.3f}", f"{one.plain_auroc:.3f}", f"{one.false_alarms:.1%}", f"{one.found:.1%}"]
        for number, one in enumerate(study.unknown)
    ]
    yield table(columns, rows)


def _set_aside(study: Study) -> Iterator[str]:
    if not study.rejected:
        return
    shown = study.rejected[:_MOST_REJECTED]
    rows = [[shown_text(words) for words in (one.path, one.reason, one.detail)] for one in shown]
    yield table(["Picture", "Reason", "Detail"], rows)
    if len(study.rejected) > _MOST_REJECTED:
        yield f"<p>and {len(study.rejected) - _MOST_REJECTED:,} more</p>\n"
