"""What the starter's vision-language model sees: questions with a picture, and with three that say nothing.

Usage: python benchmarks/starter_vlm.py [--model FOLDER] --coco ../shared/data/coco [--limit N] [--page]

* easy-VQA's test questions: exact answers, beside the most frequent answer of the training questions.
* Presence in COCO photographs whose licences kept them out of training (never read but here): POPE's form, up to three
  present categories each and as many absent ones, by each of POPE's three choices.
* Captions of the same photographs: CIDEr-D.

Beside each score stand three controls: a blank picture, the pictures of other questions, and no picture at all.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from nunbit.console import track
from nunbit.generate import GenerationConfig, Generator
from nunbit.images import open_image
from nunbit.instruct.easy_vqa import read_easy_vqa
from nunbit.instruct.formats import Conversation
from nunbit.instruct.metrics import cider, exact_match, yes_no
from nunbit.instruct.rules import Negatives, presence
from nunbit.instruct.starter_lessons import DESCRIBE, read_boxed_photos, statistics_of
from nunbit.vlm.batching import Sample
from nunbit.vlm.conversation import PICTURE, Layout, Turn
from nunbit.vlm.loading import load_vlm

from pages import Page, table

BATCH = 32
CONTROLS = ("its picture", "blank", "another's", "none")


@dataclass(frozen=True, slots=True)
class Question:
    """One question about one picture."""

    image: Path
    words: str
    truth: str


class Examinee:
    """A model, with what its eye says of each picture kept."""

    def __init__(self, folder: str) -> None:
        model = load_vlm(folder)
        model.projector.bfloat16()
        model.language_model.bfloat16()  # a quarter of the time where a processor multiplies in it
        self.generator = Generator(model, kept=0)
        self._seen: dict[Path, torch.Tensor] = {}
        side = self.generator.reader.looker.preprocessing.image_size
        self._blank = self._look(np.zeros((1, 3, side, side), np.float32))

    def ask(self, questions: Sequence[Question], control: str, most: int) -> list[str]:
        """Greedy answers of at most so many tokens."""
        distinct = sorted({question.image for question in questions})
        other = dict(zip(distinct, [*distinct[1:], distinct[0]], strict=True))
        order = sorted(range(len(questions)), key=lambda number: len(questions[number].words))
        answers = [""] * len(questions)
        for start in track(range(0, len(order), BATCH), label=control, total=-(-len(order) // BATCH)):
            chosen = order[start : start + BATCH]
            samples = [self._sample(questions[number], control, other) for number in chosen]
            found = self.generator.answer(samples, GenerationConfig(max_new_tokens=most))
            for number, answer in zip(chosen, found, strict=True):
                answers[number] = answer
        return answers

    def _sample(self, question: Question, control: str, other: dict[Path, Path]) -> Sample:
        reader = self.generator.reader
        if control == "none":
            turns = [Turn("user", (question.words,))]
            return Sample(reader.conversations.encode(turns, [], answer=True))
        layouts = [Layout(0, 0, reader.looker.tokens)]
        encoded = reader.conversations.encode([Turn("user", (PICTURE, question.words))], layouts, answer=True)
        if control == "blank":
            return Sample(encoded, image_features=self._blank)
        image = question.image if control == "its picture" else other[question.image]
        if image not in self._seen:
            self._seen[image] = self._look(reader.looker.pixels(open_image(image)[0]))
        return Sample(encoded, image_features=self._seen[image].float())

    @torch.no_grad()
    def _look(self, pixels: np.ndarray) -> torch.Tensor:
        return self.generator.model.image_features(torch.from_numpy(pixels)).half()


def main() -> None:
    """Ask, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="starter")
    parser.add_argument("--coco", type=Path, required=True, help="holds captions_boxes.jsonl and images/")
    parser.add_argument("--limit", type=int, help="so many questions of each kind, evenly spread")
    parser.add_argument("--page", action="store_true", help="write benchmarks/results")
    options = parser.parse_args()
    model = Examinee(options.model)
    page = Page("starter-vlm", "What the starter's vision-language model sees")
    page.add("Each score with the picture that was asked about, with a blank one, with another question's, with none.")
    page.add(_easy_vqa(model, options.limit))
    page.add(_presence(model, options.coco, options.limit))
    page.add(_captions(model, options.coco, options.limit))
    page.close(to_file=options.page)


def _easy_vqa(model: Examinee, limit: int | None) -> str:
    asked = {
        split: [_question(one) for one in read_easy_vqa(split)]  # type: ignore[arg-type]
        for split in ("train", "test")
    }
    usual = Counter(question.truth for question in asked["train"]).most_common(1)[0][0]
    questions = _spread(asked["test"], limit)
    truth = [question.truth for question in questions]
    scores = [exact_match(model.ask(questions, control, 4), truth) for control in CONTROLS]
    most = exact_match([usual] * len(truth), truth)
    row = [f"{score:.1f}" for score in scores]
    return (
        f"## easy-VQA, {len(questions)} test questions\n\n"
        + table(["", *CONTROLS, f"always {usual!r}"], [["right, %", *row, f"{most:.1f}"]])
        + f"\n\nBar: 95 %, and 25 points more than each control: "
        f"{'met' if scores[0] >= 95 and scores[0] - max(scores[1:]) >= 25 else 'not met'}."
    )


def _presence(model: Examinee, coco: Path, limit: int | None) -> str:
    photos = read_boxed_photos(coco)
    statistics = statistics_of(photos)
    rows, measured = [], []
    for kind in get_args(Negatives):
        rng = np.random.default_rng(0)
        questions = [
            Question(one.photo.path, words, truth)
            for one in photos
            if one.photo.split == "test" and one.boxes is not None
            for words, truth in presence(one.present, statistics, rng, kinds=(kind,), most=3)
        ]
        questions = _spread(questions, limit)
        truth = [question.truth == "yes" for question in questions]
        found = [yes_no(model.ask(questions, control, 3), truth) for control in CONTROLS]
        measured.append(found[0])
        first = (found[0].f1, found[0].accuracy, found[0].precision, found[0].recall, found[0].yes_ratio)
        controls = [f"{one.f1:.3f} ({one.accuracy:.3f})" for one in found[1:]]
        rows.append([kind, str(len(questions)), *(f"{value:.3f}" for value in first), *controls])
    f1, ratio = (float(np.mean([getattr(one, name) for one in measured])) for name in ("f1", "yes_ratio"))
    names = ["absent ones", "questions", "F1", "accuracy", "precision", "recall", "yes", *CONTROLS[1:]]
    met = "met" if f1 >= 0.7 and 0.4 <= ratio <= 0.6 else "not met"
    return (
        "## Presence in photographs that taught nothing\n\nControls: F1 (accuracy).\n\n"
        + table(names, rows)
        + f"\n\nMean F1 {f1:.3f}, yes-ratio {ratio:.2f} (bar: F1 of 0.70, yes between 0.4 and 0.6): {met}. "
        "Who always says yes has an F1 of 0.667 and a ratio of 1."
    )


def _captions(model: Examinee, coco: Path, limit: int | None) -> str:
    photos = [one.photo for one in read_boxed_photos(coco) if one.photo.split == "test"]
    questions = _spread([Question(photo.path, DESCRIBE, "") for photo in photos], limit)
    references = {photo.path: photo.captions for photo in photos}
    meant = [references[question.image] for question in questions]
    said = {control: model.ask(questions, control, 24) for control in CONTROLS}
    scores = [f"{cider(answers, meant):.3f}" for answers in said.values()]
    examples = [
        [question.image.name, said["its picture"][number], meant[number][0]]
        for number, question in enumerate(questions[:: max(1, len(questions) // 12)])
        for number in [questions.index(question)]
    ]
    return (
        f"## Captions of {len(questions)} photographs that taught nothing\n\n"
        + table(["", *CONTROLS], [["CIDEr-D", *scores]])
        + "\n\nNot chosen, every so many-th:\n\n"
        + table(["photograph", "the model", "one of five people"], examples)
    )


def _question(one: Conversation) -> Question:
    image = one.images[0]
    assert isinstance(image, Path)
    return Question(image, str(one.turns[0].parts[1]), str(one.turns[1].parts[0]))


def _spread(questions: list[Question], limit: int | None) -> list[Question]:
    if limit is None or limit >= len(questions):
        return questions
    return [questions[number * len(questions) // limit] for number in range(limit)]


if __name__ == "__main__":
    main()
