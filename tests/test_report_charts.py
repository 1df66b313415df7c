"""Curves of the run report: no peak is lost, every value is in its frame, axes and numbers as people read them."""

from __future__ import annotations

import json
import math
import re
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nunbit.pages.charts import Chart, Series, bucketed, draw_chart, moving_average, shown_number
from nunbit.training.report_curves import make_charts

HOSTILE = "<script>alert(1)</script>'\"]&\x00\u202e\ud800"


def series(values: list[float], **options: Any) -> Series:
    return Series("x", np.arange(1.0, len(values) + 1), np.array(values, float), **options)


@given(st.lists(st.floats(-1e6, 1e6) | st.just(math.nan), min_size=1, max_size=60), st.integers(1, 20))
@settings(deadline=None)
def test_joining_neighbors_loses_no_peak_and_no_step(values: list[float], limit: int) -> None:
    line = series(values)
    points = bucketed(line, limit)
    assert len(points.mean) <= max(limit, min(len(values), limit))
    assert points.first[0] == 1 and points.last[-1] == len(values)
    assert (points.first[1:] == points.last[:-1] + 1).all()
    for place in range(len(points.mean)):
        inside = line.values[int(points.first[place]) - 1 : int(points.last[place])]
        finite = inside[np.isfinite(inside)]
        assert points.odd[place] == (len(finite) < len(inside))
        if len(finite):
            assert (points.low[place], points.high[place]) == (finite.min(), finite.max())
            assert math.isclose(points.mean[place], finite.mean(), rel_tol=1e-9, abs_tol=1e-6)
        else:
            assert np.isnan([points.low[place], points.mean[place], points.high[place]]).all()


FLOATS = st.floats(-3.4e38, 3.4e38).filter(lambda value: value == 0 or abs(value) >= 1e-45) | st.just(math.nan)


@given(
    st.lists(FLOATS, min_size=1, max_size=40).filter(lambda values: not np.isnan(values).all()),
    st.sampled_from(("faint", "strong", "smooth", "guide", "dots")),
    st.booleans(),
)
@settings(deadline=None, max_examples=150)
def test_whatever_the_values_the_curve_stays_in_its_frame(values: list[float], kind: Any, from_zero: bool) -> None:
    figure = draw_chart(Chart("t", "w", (series(values, kind=kind),), from_zero=from_zero))
    svg = ElementTree.fromstring(figure)[2]
    axis = next(path.attrib["d"] for path in svg.iter("path") if path.attrib["class"] == "axis")
    left, bottom, right = map(float, re.findall(r"[\d.]+", axis))
    for path in svg.iter("path"):
        if path.attrib["class"].split()[0] in ("faint", "strong", "smooth", "guide", "dots", "band"):
            points = re.findall(r"(-?[\d.]+) (-?[\d.]+)", path.attrib["d"])
            assert points and all(left <= float(x) <= right and 0 < float(y) <= bottom for x, y in points)
    shown = json.loads(svg.attrib["data-lines"])[0]
    assert len(shown["x"]) == len(shown["values"]) == len(shown["steps"]) == len(values)


def test_a_line_shows_the_range_of_what_it_joins_and_values_that_stand_alone() -> None:
    assert 'class="band c0"' in draw_chart(Chart("t", "w", (series([1, 5] * 500),)))
    alone = draw_chart(Chart("t", "w", (series([1, math.nan, 2, math.nan, 3, 4]),)))
    assert alone.count("h0") == 2 and "band" not in alone
    assert alone.count("h7Z") == 2  # a triangle for each that is not finite


def test_the_loss_is_smoothed_beside_guessing_and_validation() -> None:
    rows = [{"step": step, "loss": 1 / step, "chance_loss": 7.0} for step in range(1, 31)]
    charts, _ = make_charts([*rows, {"step": 30, "validation/loss": 2.0}])
    assert [(line.name, line.kind) for line in charts[0].series] == [
        *(("as logged", "faint"), ("training", "smooth"), ("guessing", "guide"), ("validation", "dots"))
    ]
    charts, _ = make_charts(rows[:5])
    assert [(line.name, line.kind) for line in charts[0].series] == [("training", "strong"), ("guessing", "guide")]


def test_a_name_stays_text_in_all_parts_of_a_chart() -> None:
    lines = (series([1, 2]), Series(HOSTILE, np.array([1.0]), np.array([3.0]), "dots"))
    figure = ElementTree.fromstring(draw_chart(Chart(HOSTILE, HOSTILE, lines, unit="'")))
    assert {element.tag for element in figure.iter()} == {
        *("figure", "h3", "p", "span", "i", "b", "svg", "path", "text", "circle", "figcaption")
    }
    assert json.loads(figure[2].attrib["data-lines"])[1]["name"].startswith("<script>")


@pytest.mark.parametrize(
    ("values", "from_zero", "expected"),
    [
        ([1.0, 150.0], False, True),
        ([1.0, 90.0], False, False),
        ([1.0, 150.0], True, False),
        ([0.0, 150.0], False, False),
    ],
)
def test_the_axis_is_logarithmic_from_a_range_of_a_hundred(
    values: list[float], from_zero: bool, expected: bool
) -> None:
    chart = draw_chart(Chart("t", "w", (series(values),), from_zero=from_zero))
    assert ("Logarithmic" in chart) == expected


def test_a_value_before_the_first_step_stands_at_the_left() -> None:
    figure = draw_chart(Chart("t", "w", (Series("x", np.zeros(1), np.ones(1)),)))
    assert 'cx="50.0"' in figure


def test_the_moving_average_passes_over_what_is_not_finite() -> None:
    assert moving_average(np.array([2.0, math.nan, 4.0, 6.0])).tolist() == [3.0, 4.0, 4.0, 5.0]
    assert moving_average(np.full(5000, 3.0)).tolist() == [3.0] * 5000


def test_numbers_are_written_as_people_do() -> None:
    given = [0, 0.5, 1234.5, 999.96, 20000, 2_500_000, 3.14159, 5e-4, -1.5e-7, 1e12, math.nan]
    wanted = ["0", "0.5", "1,234", "1,000", "20,000", "2.5M", "3.142", "5e-4", "−1.5e-7", "1e12", "not finite"]
    assert [shown_number(value) for value in given] == wanted
    assert shown_number(-3, "%") == "−3 %"
