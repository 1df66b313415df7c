"""``nunbit evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import click

FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command("evaluate")
@click.option("--data", type=FOLDER, required=True, help="Holds clothing/, grocery/ and coco/.")
@click.option(
    "--wordnet", type=FOLDER, default=Path("/usr/share/wordnet"), show_default=True, help="WordNet 3.0's files."
)
@click.option("--model", default="starter", show_default=True, help="Name, folder or hub id.")
@click.option(
    "--split", type=click.Choice(["dev", "test"]), default="test", show_default=True, help="Of the photographs."
)
def command(data: Path, wordnet: Path, model: str, split: str) -> None:
    """Measure a model beside two baselines that need no training. Needs `pip install 'nunbit[train]'`.

    \b
    Examples:
      nunbit evaluate --data shared/data
    """
    from nunbit.data import Split
    from nunbit.evaluate import ConceptBaseline, Scorer, encoder_scorer, evaluate
    from nunbit.loading import load

    scorers: dict[str, Scorer] = {
        model: encoder_scorer(load(model)),
        "baseline, nearest concept": ConceptBaseline(wordnet, soft=False),
        "baseline, soft concepts": ConceptBaseline(wordnet, soft=True),
    }
    click.echo(f"| {split} | clothing | grocery | caption → photo R@5 | mean |\n|---|---|---|---|---|")
    for name, scorer in scorers.items():
        row = evaluate(scorer, data, split=cast("Split", split))
        click.echo(f"| {name} | {row.clothing:.1f} | {row.grocery:.1f} | {row.retrieval:.1f} | {row.mean:.1f} |")
