"""``nunbit train``."""

from __future__ import annotations

from pathlib import Path

import click

FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command("train")
@click.option("--coco", type=FOLDER, required=True, help="Holds captions_boxes.jsonl, images/, captions_val2017.json.")
@click.option(
    "--wordnet", type=FOLDER, default=Path("/usr/share/wordnet"), show_default=True, help="WordNet 3.0's files."
)
@click.option("--into", type=FOLDER, required=True, help="Model folder to write.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of every random choice.")
def command(coco: Path, wordnet: Path, into: Path, seed: int) -> None:
    """Train the starter's bridge again; half a minute on two cores. Needs `pip install 'nunbit[train]'`.

    \b
    Examples:
      nunbit train --coco coco/ --into my-starter
    """
    from nunbit.contrastive.starter_bridge import BridgeRecipe, train_starter
    from nunbit.contrastive.starter_lessons import LessonSources

    train_starter(LessonSources(coco, wordnet), into, BridgeRecipe(seed=seed))
    click.echo(f"wrote {into}")
