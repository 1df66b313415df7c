"""``nunbit models``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from nunbit.cli.output import print_json
from nunbit.presets import RESEARCH_LICENSES, list_presets

_COLUMNS = ("name", "numbers", "ImageNet %", "license", "hub id")
_NUMERIC = ("numbers", "ImageNet %")


@click.group("models", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON line a model.")
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List the models that can be loaded by name.

    Columns: name, numbers a picture, published zero-shot accuracy on ImageNet (--json says where), license, hub id.

    \b
    Examples:
      nunbit models
      nunbit models --json
    """
    if context.invoked_subcommand is not None:
        return
    rows = [*_shipped(), *_presets()]
    if as_json:
        for row in rows:
            print_json(row)
    else:
        click.echo("\n".join(_align([_COLUMNS, *map(_cells, rows)])))


@command.command("verify")
@click.argument("model")
@click.option("--record", is_flag=True, help="Write the golden outputs of now, where there are none or they are stale.")
@click.option("--json", "as_json", is_flag=True, help="The differences as one JSON line.")
def verify(model: str, record: bool, as_json: bool) -> None:
    """Compute a model's golden outputs again and compare with those beside its weights; exit 1 when they drifted.

    \b
    Examples:
      nunbit models verify starter
      nunbit models verify starter --json
    """
    from nunbit.errors import UsageError
    from nunbit.golden import compare_golden, record_golden
    from nunbit.loading import load, locate

    encoder, folder = load(model, engine="torch"), locate(model)
    if not folder.is_dir():
        raise UsageError(f"{model} is an archive, with no folder of its own", hint="save it with save_pretrained first")
    if record and model != "starter" and not Path(model).is_dir():
        raise UsageError(
            f"{model} lies in the cache of the hub", hint="save it into a folder with save_pretrained first"
        )
    if record:
        click.echo(f"golden outputs written to {record_golden(encoder, folder)}")
        return
    found = compare_golden(encoder, folder)
    if as_json:
        equal, texts = found.token_ids_equal
        print_json({"model": model, "fingerprint": encoder.fingerprint, "token_ids_equal": equal, "texts": texts}
                   | found.differences)  # fmt: skip
    else:
        shown = ", ".join(f"{stage} {difference:.1e}" for stage, difference in found.differences.items())
        click.echo(f"{model} answers as it did (largest differences: {shown}); fingerprint {encoder.fingerprint[:16]}")


def _shipped() -> list[dict[str, Any]]:
    from nunbit.starter.model import SHIPPED

    config = json.loads((SHIPPED / "config.json").read_text(encoding="utf-8"))
    row = {"name": "starter"} | {key: config[key] for key in ("model_type", "embedding_size", "license", "languages")}
    source = "none: its picture tower was trained on ImageNet"
    return [row | {"hub_id": None, "zero_shot_imagenet": None, "source": source}]


def _presets() -> list[dict[str, Any]]:
    return [
        {
            "name": preset.name,
            "model_type": preset.family,
            "embedding_size": preset.embedding_size,
            "license": preset.license,
            "languages": list(preset.languages),
            "hub_id": preset.hub_id,
            "zero_shot_imagenet": preset.zero_shot_imagenet,
            "source": preset.source,
        }
        for preset in list_presets()
    ]


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    accuracy = "-" if row["zero_shot_imagenet"] is None else f"{row['zero_shot_imagenet']:.1f}"
    note = " (research only)" if row["license"] in RESEARCH_LICENSES else ""
    return row["name"], str(row["embedding_size"]), accuracy, row["license"] + note, row["hub_id"] or "shipped"


def _align(rows: list[tuple[str, ...]]) -> list[str]:
    """Pad cells to columns: numbers to the right, words to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if title in _NUMERIC else cell.ljust(width)
            for title, cell, width in zip(_COLUMNS, row, widths, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
