"""``nunbit index``."""

from __future__ import annotations

from pathlib import Path

import click

from nunbit.cli.arguments import expand_paths, no_photograph
from nunbit.cli.output import print_json, report_rejected


@click.command("index")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--into", type=click.Path(file_okay=False, path_type=Path), required=True, help="The index folder.")
@click.option("--model", default="starter", show_default=True, help="Name, folder or hub id.")
@click.option("--strict", is_flag=True, help="Exit 1 if any picture was set aside.")
@click.option("--json", "as_json", is_flag=True, help="The counts as one JSON line.")
def command(paths: tuple[str, ...], into: Path, model: str, strict: bool, as_json: bool) -> int:
    """Make pictures searchable. Run it again after changes: only what changed is read.

    \b
    Examples:
      nunbit index photos/ --into photos.nunbit
      nunbit index photos/ more/one.jpg --into photos.nunbit --strict
    """
    from nunbit.console import progress_bar
    from nunbit.index import Index
    from nunbit.loading import load

    given = expand_paths(paths)
    with Index.open(into, load(model)) as index:
        with progress_bar("indexing") as show:
            report = index.add(given, progress=show)
        total = len(index)
    report_rejected(report.rejected)
    if total == 0 and all(item.reason == "no such file or folder" for item in report.rejected):
        raise no_photograph(paths)
    counts = {name: getattr(report, name) for name in ("added", "updated", "unchanged", "removed")}
    counts["rejected"] = len(report.rejected)
    if as_json:
        print_json({**counts, "total": total, "seconds": round(report.seconds, 3)})
    else:
        words = ", ".join(f"{number} {name}" for name, number in counts.items())
        click.echo(f"{into}: {total} pictures ({words}) in {report.seconds:.1f} s")
    return 1 if strict and report.rejected else 0
