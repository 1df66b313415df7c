"""Questions by rule: what is asked, and that the records decide it."""

from __future__ import annotations

import numpy as np
import pytest

from nunbit.errors import UsageError
from nunbit.instruct.rules import (
    Box,
    Statistics,
    colors,
    counts,
    listing,
    mentioned,
    plural,
    positions,
    presence,
    with_article,
)

CATEGORIES = ("apple", "bench", "cat", "dog", "knife", "skis")
SEEN = [{"cat", "dog"}, {"cat", "dog"}, {"cat"}, {"bench", "knife"}, {"bench"}, {"bench"}, {"bench"}]


def box(category: str, left: float = 0.1, right: float = 0.2, crowd: bool = False) -> Box:
    return Box(category, left, right, crowd)


def test_as_many_are_absent_as_are_present() -> None:
    statistics = Statistics(SEEN, CATEGORIES)
    questions = presence({"cat", "dog"}, statistics, np.random.default_rng(0))
    answers = dict(questions)
    assert {question for question, answer in questions if answer == "yes"} == {
        "Is there a cat in the image?",
        "Is there a dog in the image?",
    }
    assert len(answers) == 4
    assert sorted(answers.values()) == ["no", "no", "yes", "yes"]


def test_the_absent_are_chosen_as_pope_does() -> None:
    statistics = Statistics(SEEN, CATEGORIES)
    rng = np.random.default_rng(0)
    assert statistics.absent({"knife"}, 2, "popular", rng) == ["bench", "cat"]
    assert statistics.absent({"cat"}, 1, "adversarial", rng) == ["dog"]
    drawn = {tuple(statistics.absent({"cat"}, 1, "random", rng)) for _ in range(100)}
    assert drawn == {(name,) for name in CATEGORIES if name != "cat"}
    with pytest.raises(UsageError, match="no 'often' negatives"):
        statistics.absent({"cat"}, 1, "often", rng)  # type: ignore[arg-type]


def test_what_is_counted_and_where_it_stands() -> None:
    boxes = [box("cat"), box("cat"), box("dog", 0.8, 0.9), box("knife", crowd=True), *[box("bench")] * 9]
    assert counts(boxes) == [("How many cats are there?", "two"), ("How many dogs are there?", "one")]
    assert positions(boxes) == [("Where is the dog, left, middle or right?", "right")]
    assert positions([box("dog", 0.4, 0.6)])[0][1] == "middle"
    assert positions([box("dog", 0.1, 0.9)]) == []  # it is everywhere


def test_a_caption_lists_what_is_there() -> None:
    def box(name: str, crowd: bool = False) -> Box:
        return Box(name, 0.1, 0.2, crowd)

    assert listing([box("apple")]) == "A picture of an apple."
    assert listing([box("skis"), box("person"), box("person")]) == "A picture of skis and two people."
    many = [*[box("sheep")] * 7, box("person", crowd=True), box("dog")]
    assert listing(many) == "A picture of a dog, many sheep and many people."
    assert listing([]) is None


def test_colors_are_asked_where_captions_agree() -> None:
    assert colors({"bus"}, ["A Red bus", "the red bus waits", "a bus"]) == [("What color is the bus?", "red")]
    assert colors({"bus"}, ["a red bus", "an orange bus"]) == []
    assert colors({"bus"}, ["a red car and a bus"]) == []


def test_captions_name_categories_in_one_or_many() -> None:
    words = {"person": ("man", "men")}
    assert mentioned(("person", "knife", "cat"), ["Two men with knives"], words) == {"person", "knife"}
    assert mentioned(("cat",), ["a category"], {}) == set()


@pytest.mark.parametrize(
    ("one", "many"),
    [("dog", "dogs"), ("bus", "buses"), ("bench", "benches"), ("knife", "knives"), ("person", "people"),
     ("toy", "toys"), ("berry", "berries"), ("computer mouse", "computer mice"), ("sheep", "sheep")],
)  # fmt: skip
def test_plurals(one: str, many: str) -> None:
    assert plural(one) == many


def test_articles() -> None:
    assert [with_article(noun) for noun in ("dog", "apple", "skis")] == ["a dog", "an apple", "any skis"]
