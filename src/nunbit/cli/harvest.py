"""``nunbit harvest``."""

from __future__ import annotations

from pathlib import Path

import click

from nunbit.cli.arguments import expand_paths
from nunbit.cli.output import print_json


@click.command("harvest")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--into", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder to write.")
@click.option("--json", "as_json", is_flag=True, help="The counts as one JSON line.")
def command(paths: tuple[str, ...], into: Path, as_json: bool) -> None:
    """Make picture-text pairs of saved web pages: HTML files, WARC files, and folders of them. Fetches nothing.

    A pair is a picture that was saved and what its page says of it: alt, caption, title, headings, title of the page.
    The folder gets pairs.jsonl, images/, remote.jsonl (pictures that were not saved) and ledger.jsonl (set aside, and
    why).

    \b
    Examples:
      nunbit harvest pages/ --into harvest
      nunbit harvest crawl.warc.gz article.html --into harvest --json
    """
    from nunbit.console import progress_bar
    from nunbit.data.harvest import harvest

    with progress_bar("harvesting") as show:
        report = harvest(expand_paths(paths), into, progress=show)
    counts = {"pages": report.pages, "pairs": report.pairs, "remote": report.remote}
    if as_json:
        print_json({**counts, "set_aside": dict(report.reasons.most_common())})
        return
    for reason, count in report.reasons.most_common():
        click.echo(f"{count} set aside: {reason}", err=True)
    click.echo(f"{into}: {report.pairs:,} pairs of {report.pages:,} pages, {report.remote:,} pictures not saved")
