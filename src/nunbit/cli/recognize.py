"""``nunbit recognize``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from nunbit.cli.output import one_line, prediction_row, print_json, report_rejected
from nunbit.errors import UsageError
from nunbit.types import Recognition, Rejected


@click.command("recognize")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--labels", help='Labels between commas: "cat,dog".')
@click.option("--labels-file", type=click.Path(exists=True, dir_okay=False), help="One label a line.")
@click.option("--top-k", type=click.IntRange(1), default=5, show_default=True, help="Labels shown a picture.")
@click.option("--model", default="starter", show_default=True, help="Name, folder or hub id.")
@click.option("--sheet", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with pictures and bars.")
@click.option("--strict", is_flag=True, help="Exit 1 if any picture was set aside.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line a picture.")
def command(
    paths: tuple[str, ...], labels: str | None, labels_file: str | None, as_json: bool, strict: bool, **rest: object
) -> int:
    """Say which labels fit each picture best; the probabilities are over the labels given.

    \b
    Examples:
      nunbit recognize photo.jpg --labels "cat,dog,coffee"
      nunbit recognize photos/ --labels "고양이,개" --top-k 1 --json
      nunbit recognize photos/ --labels-file labels.txt --sheet sheet.html
    """
    top_k, model, sheet = rest["top_k"], rest["model"], rest["sheet"]
    classnames = _read_labels(labels, labels_file)
    done: list[Recognition] = []
    rejected: list[Rejected] = []
    for item in _run(paths, classnames, str(model), int(str(top_k))):
        if isinstance(item, Rejected):
            rejected.append(item)
            continue
        if sheet is not None:
            done.append(item)
        if as_json:
            print_json({"path": item.path, "predictions": [prediction_row(p) for p in item.predictions]})
        else:
            words = "  ".join(f"{p.label} {p.probability:.0%}" for p in item.predictions)
            click.echo(f"{one_line(item.path)}: {words}")
    if isinstance(sheet, Path):
        _write(sheet, done)
    report_rejected(rejected)
    return 1 if strict and rejected else 0


def _read_labels(labels: str | None, labels_file: str | None) -> list[str]:
    if (labels is None) == (labels_file is None):
        raise UsageError("give either --labels or --labels-file", hint='for example --labels "cat,dog,coffee"')
    if labels is not None:
        return labels.split(",")
    lines = Path(str(labels_file)).read_text(encoding="utf-8-sig").splitlines()
    return [line for line in lines if line.strip()]


def _run(paths: tuple[str, ...], classnames: list[str], model: str, top_k: int) -> Iterator[Recognition | Rejected]:
    from nunbit.console import track
    from nunbit.encode import encode_stream
    from nunbit.images import find_images
    from nunbit.loading import load
    from nunbit.recognition import Labels, check_labels

    check_labels(classnames)
    found = list(find_images(sys.stdin.read().splitlines() if paths == ("-",) else paths))
    files = [path for path in found if not isinstance(path, Rejected)]
    yield from (path for path in found if isinstance(path, Rejected))
    if not files:
        raise UsageError(f"no photograph found in {', '.join(paths)}", hint="give a picture or a folder of pictures")
    encoder = load(model)
    known = Labels(encoder, classnames)
    for item in track(encode_stream(encoder, files), label="recognizing", total=len(files)):
        if isinstance(item, Rejected):
            yield item
        else:
            yield Recognition(str(item.source), known.predict(item.embedding, top_k))


def _write(sheet: Path, done: list[Recognition]) -> None:
    from nunbit.cli.sheet import Card, write_sheet

    cards = (
        Card(item.path, tuple((p.label, p.probability, f"{p.probability:.0%}") for p in item.predictions))
        for item in done
    )
    write_sheet(sheet, "What nunbit recognizes", cards)
    click.echo(f"wrote {sheet}", err=True)
