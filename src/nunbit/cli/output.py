"""Lines that several subcommands print."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from nunbit.picture_files import one_line

if TYPE_CHECKING:
    from nunbit.types import Match, Prediction, Rejected


def print_json(row: dict[str, Any]) -> None:
    """One JSON line on stdout, Korean left readable."""
    click.echo(json.dumps(row, ensure_ascii=False))


def match_row(match: Match) -> dict[str, Any]:
    """The documented JSON form of a search hit."""
    return {"rank": match.rank, "id": match.id, "path": match.path, "similarity": round(match.similarity, 6)}


def prediction_row(prediction: Prediction) -> dict[str, Any]:
    """The documented JSON form of one label of a picture."""
    return {
        "label": prediction.label,
        "probability": round(prediction.probability, 6),
        "similarity": round(prediction.similarity, 6),
    }


def report_rejected(rejected: Sequence[Rejected]) -> None:
    """Each picture that was set aside on a line of stderr, then how many for which reason."""
    for item in rejected:
        click.echo(f"set aside: {one_line(item.path)}: {item.reason}", err=True)
    if rejected:
        counts = ", ".join(f"{n} {reason}" for reason, n in Counter(item.reason for item in rejected).most_common())
        click.echo(f"{len(rejected)} set aside: {counts}", err=True)
