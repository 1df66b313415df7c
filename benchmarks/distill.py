"""A student with a fifth of the starter's compute: how much of its accuracy is kept?

    python benchmarks/distill.py --data ../shared/data --into DIR [--page]

The student learns from clothing's and grocery's train pictures and COCO's photographs, without a label and without a
test picture (`nunbit.distill`, with its defaults but for `SETTINGS`); it copies the teacher's probabilities of the
words of both sets' classes, as one does who knows what will be asked. Whatever was chosen, was chosen by the agreement
with the teacher on held-out pictures of these (one in twenty). Then both name the test pictures by the words of their
classes; with `--probe` also by the ladder's linear probe on 16 train pictures a class, mean of three draws.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import nunbit
from nunbit.adapt import Example, Examples, Shots, class_texts, climb, embed_examples
from nunbit.adapt.study import draw
from nunbit.distill.run import DistillResult, load_config, run_distillation
from nunbit.training.watching import console_watcher

from pages import Page, table

if TYPE_CHECKING:
    from nunbit.encode import Encoder

SETTINGS = ("training.steps=1200", "training.learning_rate=1.0e-4", "losses.labels=1.0")
"""The best of three tries by the agreement on held-out pictures: 20 steps at 3e-5, and 400 at this rate, ended further
off."""

KEPT, COMPUTE = 95.0, 0.2
SHOTS, DRAWS = 16, 3
PROBE = "linear-probe"


def main() -> None:
    """Distill, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="holds clothing/, grocery/ and coco/")
    parser.add_argument("--into", type=Path, required=True, help="a folder for the run")
    parser.add_argument("--engine", help="as `nunbit.load` takes it")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="a setting of the run")
    parser.add_argument("--dev", action="store_true", help="to choose by: stop before any test picture is read")
    parser.add_argument("--probe", action="store_true", help="compare them as few-shot learners, too")
    parser.add_argument("--page", action="store_true", help="write benchmarks/results")
    options = parser.parse_args()
    result = distill(options.data, options.into, [*SETTINGS, *options.overrides], options.engine)
    if options.dev:
        print(json.dumps(result.comparison.lines(), indent=2))
        return
    teacher, student = nunbit.load("starter", engine=options.engine), nunbit.load(result.model, engine=options.engine)
    page = Page("distill", "A student with a fifth of the starter's compute")
    page.add("\n".join(f"- {name}: {words}" for name, words in result.comparison.lines().items()))
    figures = {
        name: _measure(encoder, options.data, probe=options.probe)
        for name, encoder in (("teacher", teacher), ("student", student))
    }
    page.add(_accuracies(figures))
    page.add(_bars(figures, result))
    page.close(to_file=options.page)


def distill(data: Path, into: Path, overrides: list[str], engine: str | None) -> DistillResult:
    """The run, or the rest of it."""
    folders = [str(data / part) for part in ("clothing/train", "grocery/train", "coco/images")]
    words = dict.fromkeys(word for names in classnames(data).values() for word in names.values())
    config = load_config(folders, overrides=[f"labels={json.dumps([*words], ensure_ascii=False)}", *overrides])
    with console_watcher(config.training.steps, leads=True, unit="pictures") as watcher:
        return run_distillation(config, into, watcher, engine=engine)


def classnames(data: Path) -> dict[str, dict[str, str]]:
    """The word of each folder: clothing's own names, the 43 kinds of grocery's products."""
    rows = map(json.loads, (data / "grocery" / "classes.jsonl").read_text(encoding="utf-8").splitlines())
    kinds = {row["name"].replace(" ", "-"): row["coarse"].lower() for row in rows}
    garments = {folder.name: folder.name for folder in sorted((data / "clothing" / "test").iterdir())}
    return {"clothing": garments, "grocery": kinds}


def _measure(encoder: Encoder, data: Path, *, probe: bool) -> dict[str, list[float]]:
    """Accuracy on each set's test pictures, out of 100: by the words of the classes, and by a probe."""
    found = {}
    for name, words in classnames(data).items():
        classes = class_texts(encoder, tuple(dict.fromkeys(words.values())))
        test = _shots(encoder, data / name / "test", words)
        found[name] = [_top1(test.rows @ classes.rows.T, test)]
        if probe:
            train = _shots(encoder, data / name / "train", words)
            draws = (train.part(draw(train.targets, SHOTS, seed)) for seed in range(DRAWS))
            heads = [climb(classes, few, rungs=(PROBE,)).best.head for few in draws]
            found[name].append(float(np.mean([_top1(head.logits(test.rows), test) for head in heads])))
    return found


def _shots(encoder: Encoder, folder: Path, words: Mapping[str, str]) -> Shots:
    files = sorted(folder.glob("*/*"))
    examples = tuple(Example(str(path), str(path), (words[path.parent.name],)) for path in files)
    return embed_examples(encoder, Examples(tuple(dict.fromkeys(words.values())), examples, False, ()))[0]


def _top1(scores: np.ndarray, shots: Shots) -> float:
    return 100 * float((scores.argmax(1) == shots.targets.argmax(1)).mean())


Figures = Mapping[str, Mapping[str, list[float]]]
"""By model and set."""


def _accuracies(figures: Figures) -> str:
    rows = []
    for name in ("clothing", "grocery"):
        for place, how in enumerate(("words alone", f"{SHOTS} pictures a class")[: len(figures["teacher"][name])]):
            large, small = figures["teacher"][name][place], figures["student"][name][place]
            rows.append([f"{name}, {how}", f"{large:.1f}", f"{small:.1f}", f"{100 * small / large:.1f} %"])
    return table(["top-1, %", "teacher", "student", "kept"], rows)


def _bars(figures: Figures, result: DistillResult) -> str:
    lines = []
    for name in ("clothing", "grocery"):
        kept = 100 * figures["student"][name][0] / figures["teacher"][name][0]
        lines.append(f"Bar for {name} by words: at least {KEPT:g} % kept. Found {kept:.1f} %: {_met(kept >= KEPT)}.")
    share = result.comparison.student.gmacs / result.comparison.teacher.gmacs
    lines.append(f"Bar for compute: at most {COMPUTE:.0%}. Found {share:.1%}: {_met(share <= COMPUTE)}.")
    busy = os.getloadavg()[0]
    if busy > (os.cpu_count() or 1):
        lines.append("Others worked on this machine meanwhile, so rates are low; both models took turns.")
    return "\n".join(lines)


def _met(good: bool) -> str:
    return "met" if good else "not met"


if __name__ == "__main__":
    main()
