"""What the probabilities of a head are worth, and how it tells what belongs to no class, beside the plain softmax.

Usage: python benchmarks/probabilities.py --data ../shared/data [--model NAME] [--sets clothing,...] [--dev] [--page]

Protocol: 16 pictures a class are drawn from the training photographs, five times with other seeds; a linear probe
learns them, and calibration, the threshold of answer sets and the threshold of unknown are set on the same examples,
held out in turn. Everything is then measured on the test photographs, which are used for nothing else: what had to be
chosen was chosen with ``--dev``. For unknown, half of the classes are learned, and the test photographs of the other
half are strange (near); or all of them, and the test photographs of another set are (far).
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import nunbit
from nunbit.adapt import LinearProbe, Promises, Shots, climb
from nunbit.adapt.figures import UnknownFigures, measure_probabilities, measure_unknown
from nunbit.adapt.promises import keep_promises, negative_rows
from nunbit.adapt.study import draw
from nunbit.console import track
from nunbit.encode import Encoder

from pages import Page, table
from sorted_sets import SETS, Sorted, read_sorted

SHOTS, SEEDS = 16, range(5)
WAYS = ("neighbors", "energy", "negatives")
FAR = {"clothing": "grocery", "grocery": "clothing", "grocery-coarse": "clothing", "pcb": "clothing"}


def main() -> None:
    """Measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="holds clothing/, grocery/ and deeppcb/")
    parser.add_argument("--model", default="starter")
    parser.add_argument("--sets", default=",".join(SETS), help=f"between commas: {', '.join(SETS)}")
    parser.add_argument("--dev", action="store_true", help="to choose by: divide the training photographs in half")
    parser.add_argument("--page", action="store_true", help="write benchmarks/results")
    options = parser.parse_args()
    encoder = nunbit.load(options.model)
    names = options.sets.split(",")
    with tempfile.TemporaryDirectory() as scratch:
        wanted = sorted({*names, *(FAR[name] for name in names)})
        sets = {name: read_sorted(name, encoder, options.data, Path(scratch)) for name in wanted}
    if options.dev:
        sets = {name: data.dev() for name, data in sets.items()}
    page = Page("probabilities", f"What probabilities are worth, from {SHOTS} pictures a class: {encoder.name}")
    page.add("Measured on the test photographs; mean of five draws.")
    worth, told = [], []
    for name in track(names, label="measuring", total=len(names)):
        worth.append([name, *_worth(sets[name])])
        told += [[name, *row] for row in _told(encoder, sets[name], sets[FAR[name]].test)]
    columns = ["", "right, %", "ECE plain", "ECE calibrated", "promised, %", "reached, %", "answers"]
    page.add("## Probabilities\n\nExpected calibration error in points (15 bins).\n\n")
    page.add(table([*columns, "plain reaches, %", "its answers"], worth))
    page.add(
        "## Unknown\n\nAUROC, known against strange. The last two columns: share of known photographs that are called "
        "unknown (5 % were allowed) and of strange ones, by `neighbors`.\n\n"
    )
    page.add(table(["", "strange", "plain softmax", *WAYS, "false alarms, %", "found, %"], told))
    page.close(to_file=options.page)


def _drawn(data: Sorted, seed: int) -> Shots:
    return data.train.part(draw(data.train.targets, SHOTS, seed))


def _worth(data: Sorted) -> list[str]:
    found = []
    for seed in SEEDS:
        shots = _drawn(data, seed)
        best = climb(data.classes, shots, [LinearProbe.NAME]).best
        head, _ = keep_promises(best.head, best.held_out, data.classes, shots, Promises(unknown="none"), None)
        found.append(astuple(measure_probabilities(head, data.test.rows, data.test.targets)))
    right, plain, tuned, coverage, reached, size, plain_reached, plain_size = np.mean(found, axis=0)
    shares = [f"{100 * value:.1f}" for value in (right, plain, tuned, coverage, reached)]
    return [*shares, f"{size:.1f}", f"{100 * plain_reached:.1f}", f"{plain_size:.1f}"]


def _told(encoder: Encoder, data: Sorted, others: Shots) -> list[list[str]]:
    classes = np.arange(len(data.classes.names))
    strange = replace(others, targets=np.zeros((len(others.rows), len(classes)), bool), groups=None)
    far = Shots(np.concatenate([data.test.rows, strange.rows]), np.concatenate([data.test.targets, strange.targets]))
    rows = []
    for name, measured in (("other classes", data.test), ("another set", far)):
        found: dict[str, list[UnknownFigures]] = defaultdict(list)
        for seed in SEEDS:
            known = classes
            if name == "other classes":
                known = np.sort(np.random.default_rng(seed).permutation(classes)[: len(classes) // 2])
            negatives = negative_rows(encoder, data.classes.part(known), Promises(unknown="negatives"))
            for way in WAYS:
                given = negatives if way == "negatives" else None
                shots = _drawn(data, seed)
                one = measure_unknown(data.classes, shots, measured, known, way, rung=LinearProbe.NAME, negatives=given)
                assert one is not None  # sixteen examples a class are enough
                found[way].append(one)
        areas = [np.mean([one.auroc for one in found[way]]) for way in WAYS]
        plain = np.mean([one.plain_auroc for one in found["energy"]])
        alarms = np.mean([one.false_alarms for one in found["neighbors"]])
        hits = np.mean([one.found for one in found["neighbors"]])
        areas = [f"{area:.3f}" for area in (plain, *areas)]
        rows.append([name, *areas, f"{100 * alarms:.1f}", f"{100 * hits:.1f}"])
    return rows


if __name__ == "__main__":
    main()
