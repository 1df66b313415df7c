"""``nunbit models``."""

from __future__ import annotations

import json

import click

from nunbit.cli.output import print_json


@click.command("models")
@click.option("--json", "as_json", is_flag=True, help="One JSON line a model.")
def command(as_json: bool) -> None:
    """List the models that can be loaded by name.

    \b
    Examples:
      nunbit models
      nunbit models --json
    """
    from nunbit.loading import NAMED_MODELS

    for name, folder in NAMED_MODELS.items():
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        row = {"name": name} | {key: config[key] for key in ("model_type", "embedding_size", "languages", "license")}
        if as_json:
            print_json(row)
        else:
            languages = ", ".join(config["languages"])
            click.echo(f"{name}  {config['embedding_size']} numbers a picture  {languages}  {config['license']}")
