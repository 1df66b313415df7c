"""One very thing among its kind: each product of grocery from 3 and 5 photographs, found among the test photographs.

Usage: python benchmarks/concepts.py --data ../shared/data [--model NAME] [--dev] [--page]

Protocol: of each product that has enough of them, so many training photographs show the thing; all other training
photographs, of this product too, are the index, without labels. The concept is then looked for among all test
photographs: average precision, and whether the first one found shows it. Beside it: its name, the mean of the
photographs, and the nearest of them. What was forgotten: test photographs of other products, named by the kinds of
products, with the concept beside these labels and without it. What had to be chosen was chosen with ``--dev``.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import nunbit
from nunbit.adapt import class_texts, learn_concept
from nunbit.console import track

from pages import Page, table
from sorted_sets import Sorted, read_sorted

PHOTOGRAPHS = (3, 5)
WAYS = ("its name", "mean of the photographs", "nearest photograph", "concept")


def main() -> None:
    """Measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="holds grocery/")
    parser.add_argument("--model", default="starter")
    parser.add_argument("--dev", action="store_true", help="to choose by: divide the training photographs in half")
    parser.add_argument("--page", action="store_true", help="write benchmarks/results")
    options = parser.parse_args()
    encoder = nunbit.load(options.model)
    with tempfile.TemporaryDirectory() as scratch:
        data = read_sorted("grocery", encoder, options.data, Path(scratch))
        coarse = read_sorted("grocery-coarse", encoder, options.data, Path(scratch))
    if options.dev:
        data, coarse = data.dev(), coarse.dev()
    page = Page("concepts", f"One very thing among its kind, from 3 and 5 photographs: {encoder.name}")
    page.add(f"{len(data.test.rows)} photographs of {len(data.classes.names)} products are looked through.")
    rows = []
    for count in PHOTOGRAPHS:
        found = _find(data, count, encoder.logit_scale)
        products = len(found[WAYS[0]])
        for way in WAYS:
            precision, first = np.mean(found[way], axis=0)
            rows.append([f"{count}, of {products} products", way, f"{100 * precision:.1f}", f"{100 * first:.1f}"])
    page.add(table(["photographs", "looked for by", "average precision, %", "first one is right, %"], rows))
    page.add(_forgotten(data, coarse, class_texts(encoder, coarse.classes.names), encoder.logit_scale))
    page.close(to_file=options.page)


def _shown(data: Sorted, product: int, count: int) -> np.ndarray:
    members = np.flatnonzero(data.train.targets[:, product])
    return np.random.default_rng(product).permutation(members)[:count]


def _products(data: Sorted, count: int) -> list[int]:
    enough = (data.train.targets.sum(0) >= count) & (data.test.targets.sum(0) >= 2)
    return np.flatnonzero(enough).tolist()


def _find(data: Sorted, count: int, scale: float) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    products = _products(data, count)
    for product in track(products, label=f"{count} photographs", total=len(products)):
        shown = _shown(data, product, count)
        photographs, index = data.train.rows[shown], np.delete(data.train.rows, shown, axis=0)
        concept = learn_concept("it", photographs, index, logit_scale=scale)
        truth = data.test.targets[:, product]
        scores = (
            data.test.rows @ data.classes.rows[product],
            data.test.rows @ photographs.mean(0),
            (data.test.rows @ photographs.T).max(1),
            data.test.rows @ concept.head.weights[0],
        )
        for way, score in zip(WAYS, scores, strict=True):
            found[way].append((average_precision(score, truth), float(truth[score.argmax()])))
    return found


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Mean over the true ones of the share of true ones up to each."""
    ordered = truth[np.argsort(-scores, kind="stable")]
    return float((np.cumsum(ordered) / np.arange(1, len(ordered) + 1))[ordered].mean())


def _forgotten(data: Sorted, coarse: Sorted, labels: object, scale: float) -> str:
    before, after, taken = [], [], []
    for product in _products(data, PHOTOGRAPHS[-1]):
        shown = _shown(data, product, PHOTOGRAPHS[-1])
        index = np.delete(data.train.rows, shown, axis=0)
        head = learn_concept("it", data.train.rows[shown], index, labels, logit_scale=scale).head
        others = ~data.test.targets[:, product]
        logits, truth = head.logits(data.test.rows[others]), coarse.test.targets[others].argmax(1)
        before.append((logits[:, 1:].argmax(1) == truth).mean())
        after.append((logits.argmax(1) - 1 == truth).mean())
        taken.append((head.logits(data.test.rows[~others]).argmax(1) == 0).mean())
    return (
        f"With {PHOTOGRAPHS[-1]} photographs, beside {len(coarse.classes.names)} kinds of products by their words: "
        f"photographs of other products are named right {100 * np.mean(before):.2f} % without and "
        f"{100 * np.mean(after):.2f} % with the concept; of photographs of the thing "
        f"{100 * np.mean(taken):.1f} % are called by its name (the threshold lets it take 1 % of the index)."
    )


if __name__ == "__main__":
    main()
