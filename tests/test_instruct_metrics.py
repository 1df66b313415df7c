"""Metrics against numbers that can be worked out by hand."""

from __future__ import annotations

import math

import pytest

from nunbit.instruct.metrics import cider, exact_match, yes_no


def test_answers_match_whatever_their_case_and_full_stop() -> None:
    assert exact_match(["Red.", " blue", "greenish"], ["red", "Blue", "green"]) == pytest.approx(200 / 3)


def test_presence_is_measured_as_pope_does() -> None:
    found = yes_no(["Yes.", "yes, there is", "no", "No", "maybe", "Yes"], [True, False, True, False, False, True])
    assert (found.precision, found.recall) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert found.f1 == pytest.approx(2 / 3)
    assert found.accuracy == pytest.approx(4 / 6)
    assert (found.yes_ratio, found.neither) == (pytest.approx(0.5), pytest.approx(1 / 6))
    assert yes_no(["no"], [True]).f1 == 0


def test_who_never_says_yes_has_no_f1_and_who_always_does_two_thirds() -> None:
    truth = [True, False] * 5
    assert yes_no(["no"] * 10, truth).f1 == 0
    assert yes_no(["yes"] * 10, truth).f1 == pytest.approx(2 / 3)


def test_cider_of_a_single_word() -> None:
    references = [["cat"], ["dog"]]
    # One gram of one length out of four, in one of two documents: its cosine with itself is 1.
    assert cider(["cat", "dog"], references) == pytest.approx(10 / 4)
    assert cider(["dog", "cat"], references) == 0
    # A word more: the vector (1, 1) against (1, 0) in units of log 2, and one word of difference in length.
    expected = 10 / 4 * (1 / math.sqrt(2)) * math.exp(-1 / 72) / 2
    assert cider(["cat bird", "nothing"], references) == pytest.approx(expected)


def test_cider_of_the_references_is_ten_and_words_of_all_say_nothing() -> None:
    references = [["a red bus on a wet street"], ["two small dogs run in tall grass"]]
    assert cider([group[0] for group in references], references) == pytest.approx(10)
    everywhere = [["the cat"], ["the dog"]]
    assert cider(["the", "the"], everywhere) == 0
