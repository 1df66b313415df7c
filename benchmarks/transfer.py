"""Does fine-tuning on a few hundred pictures of groceries help with groceries, and what is forgotten?

    python benchmarks/transfer.py --data ../shared/data --into DIR [--page]

Writes pairs from grocery's train pictures with their classes and descriptions, trains the starter's bridge whole and
by low-rank adapters (`transfer-bridge.yaml`, `transfer-lora.yaml`), and measures what `nunbit eval starter` does before
and after: grocery's test pictures, clothing, captions of photographs. Choices were made on held-out train pictures of
groceries, on clothing's train pictures, which teach nothing here, and on photographs of the dev split; test pictures
are read at the end only.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nunbit
from nunbit.contrastive.run import load_config, run_contrastive
from nunbit.data import read_captioned_photos
from nunbit.evaluate import Figures, encoder_scorer, evaluate
from nunbit.training.watching import console_watcher

from pages import Page

HERE = Path(__file__).parent
RECIPES = ("bridge", "lora")
GAIN, LOSS = 15.0, 1.0  # points
HELD_OUT = 2  # of each product's twelve train pictures


def write_pairs(data: Path, into: Path) -> None:
    """Pairs that teach (``grocery``, ``photographs``), and pairs to choose by (the other three)."""
    teaching, held_out = [], []
    for line in (data / "grocery" / "classes.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        kind = row["coarse"].lower()
        pictures = sorted((data / "grocery" / "train" / row["name"].replace(" ", "-")).iterdir())
        texts = [kind, f"a photo of {kind}", row["name"], row["description"]]
        for number, path in enumerate(pictures):
            held = number % len(pictures) < HELD_OUT
            pair = {"image": str(path.resolve()), "texts": [kind] if held else texts, "kind": kind}
            (held_out if held else teaching).append(pair)
    photos = read_captioned_photos(data / "coco")
    _write(into / "grocery.jsonl", teaching)
    _write(into / "grocery-held-out.jsonl", held_out)
    for split, name in (("train", "photographs"), ("dev", "photographs-dev")):
        chosen = (photo for photo in photos if photo.split == split)
        rows = [{"image": str(photo.path.resolve()), "texts": list(photo.captions)} for photo in chosen]
        _write(into / f"{name}.jsonl", rows)
    clothes = ((path, path.parent.name) for path in sorted((data / "clothing" / "train").glob("*/*")))
    rows = [{"image": str(path.resolve()), "texts": [label], "kind": label} for path, label in clothes]
    _write(into / "clothing-unseen.jsonl", rows)


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def train(recipe: str, into: Path, overrides: Sequence[str]) -> Path:
    """Train by a recipe beside this file; the model folder."""
    shutil.copy(HERE / f"transfer-{recipe}.yaml", into)
    config = load_config(into / f"transfer-{recipe}.yaml", overrides)
    with console_watcher(config.training.steps, leads=True) as watcher:
        result = run_contrastive(config, into / f"run-{recipe}", watcher)
    assert result is not None
    return result.model


def main() -> None:
    """Prepare, train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="holds grocery, clothing and coco")
    parser.add_argument("--into", type=Path, required=True, help="a folder for pairs and runs")
    parser.add_argument("--split", choices=("dev", "test"), default="test", help="dev: held-out pictures only")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="a setting of both recipes")
    parser.add_argument("--page", action="store_true", help="write benchmarks/results")
    options = parser.parse_args()
    options.into.mkdir(parents=True, exist_ok=True)
    write_pairs(options.data, options.into)
    models = {"starter": "starter"} | {name: str(train(name, options.into, options.overrides)) for name in RECIPES}
    if options.split == "dev":
        return
    figures = {name: _measure(model, options.data) for name, model in models.items()}
    lines = list(_table(figures))
    page = Page("transfer", "What fine-tuning on groceries gives, and what is forgotten")
    page.add("\n".join(lines))
    for name in RECIPES:
        gain, kept = (
            getattr(figures[name], kind) - getattr(figures["starter"], kind) for kind in ("grocery", "clothing")
        )
        met = "met" if gain >= GAIN and kept >= -LOSS else "not met"
        page.add(
            f"Bar for {name}: at least {GAIN:+g} on grocery, {-LOSS:+g} on clothing. "
            f"Found {gain:+.1f}, {kept:+.1f}: {met}."
        )
    page.close(to_file=options.page)


def _measure(model: str, data: Path) -> Figures:
    return evaluate(encoder_scorer(nunbit.load(model, engine="torch")), data)


def _table(figures: Mapping[str, Figures]) -> Iterable[str]:
    start = figures["starter"]
    yield "| | grocery, 43 classes | clothing, 10 classes | caption → photo R@5 of 169 |"
    yield "|---|---|---|---|"
    for name, found in figures.items():
        cells = [
            f"{getattr(found, kind):.1f} ({getattr(found, kind) - getattr(start, kind):+.1f})"
            for kind in ("grocery", "clothing", "retrieval")
        ]
        yield f"| {name} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
