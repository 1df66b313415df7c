"""``nunbit backup``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("backup")
@click.option("--in", "index", required=True, type=click.Path(file_okay=False, path_type=Path), help="The index.")
@click.option("--into", required=True, type=click.Path(file_okay=False, path_type=Path), help="A new folder.")
def command(index: Path, into: Path) -> None:
    """Copy an index, also while it is served or written to. The copy is an index: serve it, and it is restored.

    \b
    Examples:
      nunbit backup --in photos.nunbit --into backups/2026-11-26.nunbit
    """
    from nunbit.index import back_up

    report = back_up(index, into)
    click.echo(f"{into}: {report.pictures:,} pictures, {report.uploads:,} of them uploaded files")
