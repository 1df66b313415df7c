"""``nunbit index``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from nunbit.cli.arguments import engine_option, exact_option, expand_paths, model_option, no_photograph, open_encoder
from nunbit.cli.output import print_json, report_rejected


@dataclass(frozen=True, slots=True)
class Request:
    """The options of the subcommand, under the names that click gives them."""

    paths: tuple[str, ...]
    into: Path
    model: str
    engine: str | None
    exact: bool
    strict: bool
    as_json: bool


@click.command("index")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--into", type=click.Path(file_okay=False, path_type=Path), required=True, help="The index folder.")
@model_option
@engine_option
@exact_option
@click.option("--strict", is_flag=True, help="Exit 1 if any picture was set aside.")
@click.option("--json", "as_json", is_flag=True, help="The counts as one JSON line.")
def command(**options: Any) -> int:
    """Make pictures searchable. Run it again after changes: only what changed is read.

    \b
    Examples:
      nunbit index photos/ --into photos.nunbit
      nunbit index photos/ more/one.jpg --into photos.nunbit --strict
    """
    from nunbit.console import progress_bar
    from nunbit.index import Index

    request = Request(**options)
    given = expand_paths(request.paths)
    encoder = open_encoder(request.model, request.engine)
    with Index.open(request.into, encoder) as index:
        with progress_bar("indexing") as show:
            report = index.add(given, progress=show, exact=request.exact)
        total = len(index)
    report_rejected(report.rejected)
    if total == 0 and all(item.reason == "no such file or folder" for item in report.rejected):
        raise no_photograph(request.paths)
    counts = {name: getattr(report, name) for name in ("added", "updated", "unchanged", "removed")}
    counts["rejected"] = len(report.rejected)
    if request.as_json:
        print_json({**counts, "total": total, "seconds": round(report.seconds, 3), "engine": encoder.engine.name})
    else:
        words = ", ".join(f"{number} {name}" for name, number in counts.items())
        click.echo(f"{request.into}: {total} pictures ({words}) in {report.seconds:.1f} s, {encoder.engine.name}")
    return 1 if request.strict and report.rejected else 0
