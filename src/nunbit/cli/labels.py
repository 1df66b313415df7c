"""``nunbit labels``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nunbit.cli.arguments import engine_option, model_option, open_encoder
from nunbit.cli.output import print_json

_FOLDER = click.argument("folder", type=click.Path(path_type=Path))
_JSON = click.option("--json", "as_json", is_flag=True, help="The result as JSON lines.")


@click.group("labels")
def command() -> None:
    """Keep labels, from ten to millions, with their embeddings in a folder.

    \b
    Examples:
      nunbit labels build nouns.txt --into nouns.labels
      nunbit recognize photos/ --labels nouns.labels
    """


@command.command("build")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--into", required=True, type=click.Path(path_type=Path), help="Folder of the label set.")
@click.option("--templates", default="none", show_default=True, help="Sentences around the labels, by name.")
@model_option
@engine_option
@_JSON
def build(file: Path, into: Path, templates: str, model: str, engine: str | None, as_json: bool) -> None:
    """Make a label set hold exactly the labels of FILE; interrupted and run again, it goes on.

    FILE is .txt (one label a line), .jsonl, .csv or .tsv (name, synonyms, parents; ";" between several). Texts that
    the set knows are not embedded again.

    \b
    Examples:
      nunbit labels build nouns.txt --into nouns.labels
      nunbit labels build products.csv --into products.labels --templates photo
    """
    from nunbit.console import progress_bar
    from nunbit.labels import LabelSet

    with progress_bar("embedding") as show:
        _, report = LabelSet.build(file, into, open_encoder(model, engine), templates=templates, progress=show)
    for row in report.rejected:
        click.echo(f"set aside: {file.name}:{row.line}: {row.reason}", err=True)
    counts: dict[str, Any] = {
        name: getattr(report, name) for name in ("labels", "rows", "embedded", "reused", "merged")
    }
    if as_json:
        print_json(counts | {"set_aside": dict(report.reasons), "seconds": round(report.seconds, 3)})
        return
    for reason, count in report.reasons.most_common():
        click.echo(f"{count} set aside: {reason}", err=True)
    shown = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    click.echo(f"{into}: {shown} in {report.seconds:.1f} s")


@command.command("add")
@_FOLDER
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--synonyms", help='Of a single NAME, ";" between them.')
@click.option("--parents", help='Of a single NAME, ";" between them.')
@model_option
@engine_option
def add(
    folder: Path, names: tuple[str, ...], synonyms: str | None, parents: str | None, model: str, engine: str | None
) -> None:
    """Add labels, each in place of the one of its name if there is one.

    \b
    Examples:
      nunbit labels add nouns.labels "red panda" --synonyms "lesser panda;레서판다" --parents mammal
    """
    from nunbit.errors import UsageError
    from nunbit.labels import LabelEntry, LabelSet

    if len(names) > 1 and (synonyms or parents):
        raise UsageError("--synonyms and --parents belong to one label", hint="add one label a call")
    more = [tuple((text or "").split(";")) for text in (synonyms, parents)]
    added = LabelSet.open(folder, open_encoder(model, engine)).add([LabelEntry(name, *more) for name in names])
    click.echo(f"{added} added, {len(names) - added} replaced")


@command.command("remove")
@_FOLDER
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def remove(folder: Path, names: tuple[str, ...]) -> None:
    """Remove labels by name.

    \b
    Examples:
      nunbit labels remove nouns.labels "red panda" lion
    """
    from nunbit.labels import LabelSet

    removed = LabelSet.open(folder).remove(names)
    click.echo(f"{removed} removed, {len(names) - removed} not there")


@command.command("compact")
@_FOLDER
@model_option
@engine_option
def compact(folder: Path, model: str, engine: str | None) -> None:
    """Take labels that were added and removed into what was built; nothing is embedded again.

    \b
    Examples:
      nunbit labels compact nouns.labels
    """
    from nunbit.labels import LabelSet

    report = LabelSet.open(folder, open_encoder(model, engine)).compact()
    click.echo(f"{folder}: {report.labels:,} labels in {report.seconds:.1f} s")


@command.command("info")
@_FOLDER
@click.argument("name", required=False)
@_JSON
def info(folder: Path, name: str | None, as_json: bool) -> None:
    """Tell what a label set holds, or what it knows of the label NAME.

    \b
    Examples:
      nunbit labels info nouns.labels
      nunbit labels info nouns.labels "red panda" --json
    """
    from nunbit.errors import UsageError
    from nunbit.labels import LabelSet

    labels = LabelSet.open(folder)
    row: dict[str, Any]
    if name is None:
        made = labels.identity
        row = {"labels": len(labels), "changes": labels.changes, "encoder": made.encoder}
        row |= {"fingerprint": made.fingerprint, "templates": list(made.templates)}
    else:
        entry = labels.get(name)
        if entry is None:
            raise UsageError(f"there is no label {name!r} in {folder}")
        row = {"name": entry.name, "synonyms": list(entry.synonyms), "ancestors": labels.ancestors(name)}
    if as_json:
        print_json(row)
    else:
        click.echo("\n".join(f"{key}: {value}" for key, value in row.items()))


@command.command("search")
@_FOLDER
@click.argument("text")
@click.option("--top-k", type=click.IntRange(1), default=10, show_default=True, help="Labels shown.")
@model_option
@engine_option
@_JSON
def search(folder: Path, text: str, top_k: int, model: str, engine: str | None, as_json: bool) -> None:
    """Find the labels nearest to a text.

    \b
    Examples:
      nunbit labels search nouns.labels "작은 개"
    """
    from nunbit.labels import LabelSet

    encoder = open_encoder(model, engine)
    for match in LabelSet.open(folder, encoder).search(encoder.encode_text([text]), top_k)[0]:
        if as_json:
            print_json({"label": match.label, "similarity": round(match.similarity, 6), "text": match.text})
        else:
            via = "" if match.text == match.label else f" ({match.text})"
            click.echo(f"{match.similarity:.3f}  {match.label}{via}")
