"""``nunbit curate``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nunbit.cli.arguments import engine_option, open_encoder
from nunbit.cli.output import print_json

if TYPE_CHECKING:
    from nunbit.curate import Curation, CurationConfig, Embedder
    from nunbit.data import Source
    from nunbit.types import ImageText, Rejected


@dataclass(frozen=True, slots=True)
class Request:
    """The options of the subcommand, under the names that click gives them."""

    sources: tuple[str, ...]
    into: Path
    config: Path | None
    changes: tuple[str, ...]
    images: str
    model: str | None
    engine: str | None
    split: str
    seed: int | None
    as_json: bool


def _show_rules(context: click.Context, _: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    if "help" in values:
        from nunbit.curate.rules import rule_lines

        for line in rule_lines():
            click.echo(line)
        context.exit()
    return values


@click.command("curate")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--into", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the results.")
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="Rules, as YAML.")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="NAME=VALUE",
    is_eager=True,
    callback=_show_rules,
    help="Change a rule; --set help lists them.",
)
@click.option("--images", default="", metavar="DIR", help="Where relative paths of pictures start; else at the SOURCE.")
@click.option("--model", help="An encoder for near duplicates and similarity, such as starter; else hashes alone.")
@engine_option
@click.option("--split", default="", metavar="SHARES", help="Train, validation and test: 0.9,0.05,0.05.")
@click.option("--seed", type=int, help="Decides whatever is drawn.")
@click.option("--json", "as_json", is_flag=True, help="The counts as one JSON line.")
def command(**options: Any) -> None:
    """Keep the good records of pictures and texts: no duplicates, no broken or blank pictures, no empty words.

    A SOURCE is a folder, or a CSV, JSONL, Parquet, tar or COCO file. Rules are turned on and off in a file or by --set.

    \b
    Examples:
      nunbit curate pairs.jsonl --into curated
      nunbit curate pairs.jsonl --into curated --set min_side=64 --set languages=ko,en --split 0.8,0.1,0.1
      nunbit curate pairs.jsonl --into curated --config rules.yaml --json
    """
    from nunbit.curate import make_rules
    from nunbit.data import SourceConfig, open_source
    from nunbit.durable import only_writer

    request = Request(**options)
    rules = make_rules(request.config, request.changes, split=request.split, seed=request.seed)
    sources = [open_source(SourceConfig(path, images=request.images)) for path in request.sources]
    request.into.mkdir(parents=True, exist_ok=True)
    with only_writer(request.into / "writer.lock", str(request.into)):
        curation = _run(request, rules, sources)
    if request.as_json:
        print_json(_row(curation))
    else:
        _print_table(curation)
    click.echo(f"wrote {request.into / 'report.html'}", err=True)


def _run(request: Request, rules: CurationConfig, sources: list[Source]) -> Curation:
    from nunbit.curate import curate
    from nunbit.curate.output import CACHE, Origin, PictureCopies, write_curation

    copies = PictureCopies(request.into)
    with ExitStack() as stack:
        embedder = _embedder(request, stack)
        records = copies.stored(_records(sources))
        curation = curate(records, rules, embedder=embedder, keep_in=request.into / CACHE)
    signatures = {source.config.path: source.signature() for source in sources}
    identity = embedder.identity if embedder else ""
    write_curation(curation, request.into, Origin(signatures, request.model or "", identity))
    copies.remove_others(curation.kept)
    return curation


def _records(sources: Iterable[Source]) -> Iterator[ImageText | Rejected]:
    """The records of all sources, with a bar of how far they are read."""
    from nunbit.console import progress_bar

    counts = [source.count() for source in sources]
    known = sum(count for count in counts if count is not None) if None not in counts else 0
    with progress_bar("measuring") as show:
        everything = chain.from_iterable(source.records() for source in sources)
        for done, record in enumerate(everything, start=1):
            yield record
            show(done, max(known, done))


def _embedder(request: Request, stack: ExitStack) -> Embedder | None:
    """The encoder that was asked for, with a bar that appears when it is used."""
    if request.model is None:
        return None
    from nunbit.console import progress_bar
    from nunbit.curate import encoder_embedder

    encoder = open_encoder(request.model, request.engine)
    bars: list[Any] = []

    def show(done: int, total: int) -> None:
        if not bars:
            bars.append(stack.enter_context(progress_bar("encoding")))
        bars[0](done, total)

    return encoder_embedder(encoder, show)


def _row(curation: Curation) -> dict[str, Any]:
    """The documented JSON form."""
    texts = sum(len(record.texts) for record in curation.kept)
    row: dict[str, Any] = {"records": curation.seen, "kept": len(curation.kept), "texts": texts}
    row["dropped"] = {step.filter: {"records": step.records, "texts": step.texts} for step in curation.steps}
    row["splits"] = {name: len(places) for name, places in curation.splits.items()}
    if curation.splits:
        row["groups"], row["largest_group"] = curation.groups
    return row


def _print_table(curation: Curation) -> None:
    from nunbit.curate.filters import FILTERS

    left = curation.seen
    click.echo(f"{'':58}{'records':>10}{'texts':>10}{'left':>10}")
    click.echo(f"{'Records that came':58}{'':>10}{'':>10}{left:>10,}")
    for step in curation.steps:
        left -= step.records
        out = (f"-{count:,}" if count else "" for count in (step.records, step.texts))
        click.echo(f"{FILTERS[step.filter]:58}{next(out):>10}{next(out):>10}{left:>10,}")
    texts = sum(len(record.texts) for record in curation.kept)
    click.echo(f"{'Stays':58}{'':>10}{texts:>10,}{left:>10,}")
    if curation.splits:
        sides = ", ".join(f"{len(places):,} {name}" for name, places in curation.splits.items())
        groups, largest = curation.groups
        click.echo(f"\n{sides}; {groups:,} groups, the largest of {largest:,} records")
