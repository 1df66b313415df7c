"""``nunbit search``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nunbit.cli.arguments import engine_option, exact_option, open_encoder
from nunbit.cli.output import match_row, print_json
from nunbit.errors import UsageError
from nunbit.picture_files import one_line

if TYPE_CHECKING:
    from nunbit.encode import Encoder
    from nunbit.head import Head


@dataclass(frozen=True, slots=True)
class Request:
    """The options of the subcommand, under the names that click gives them."""

    text: str | None
    image: str | None
    folder: Path
    top_k: int
    where: str | None
    model: str
    engine: str | None
    exact: bool
    sheet: Path | None
    as_json: bool


@click.command("search")
@click.argument("text", required=False)
@click.option("--image", type=click.Path(dir_okay=False), help="Search by this picture instead of words.")
@click.option("--in", "folder", type=click.Path(path_type=Path), required=True, help="The index folder.")
@click.option("--top-k", type=click.IntRange(1), default=10, show_default=True, help="How many pictures.")
@click.option("--where", help="Filter, as SQL over path, size, width, height, format, taken, content_hash.")
@click.option("--model", default="starter", show_default=True, help="The encoder that made the index.")
@engine_option
@exact_option
@click.option("--sheet", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with the pictures.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line a hit.")
def command(**options: Any) -> None:
    """Find pictures by words, English or Korean, by a picture, or by a thing that `nunbit adapt concept` learned.

    \b
    Examples:
      nunbit search "a dog on a beach" --in photos.nunbit --top-k 5
      nunbit search "해변의 개" --in photos.nunbit --json
      nunbit search --image query.jpg --in photos.nunbit --where "width >= 640"
      nunbit search mug.head --in photos.nunbit
    """
    from nunbit.index import Index

    request = Request(**options)
    if (request.text is None) == (request.image is None):
        raise UsageError("give either words or --image", hint='for example: nunbit search "a dog" --in photos.nunbit')
    encoder = open_encoder(request.model, request.engine)
    with Index.open(request.folder, encoder, create=False) as index:
        if (learned := _concept(request, encoder)) is not None:
            matches = index.search_vector(learned.weights[0], request.top_k, request.where)
        else:
            matches = index.search(
                request.text, image=request.image, top_k=request.top_k, where=request.where, exact=request.exact
            )
    for match in matches:
        if request.as_json:
            print_json(match_row(match))
        else:
            click.echo(f"{match.rank:3}  {match.similarity:.3f}  {one_line(match.path)}")
    if not matches:
        click.echo("no picture matches", err=True)
    if request.sheet is not None:
        from nunbit.cli.sheet import Card, write_sheet

        cards = (Card(m.path, (("similarity", m.similarity, f"{m.similarity:.3f}"),)) for m in matches)
        write_sheet(request.sheet, request.text or f"like {request.image}", cards)
        click.echo(f"wrote {request.sheet}", err=True)


def _concept(request: Request, encoder: Encoder) -> Head | None:
    """The concept that the words name, where they are the folder of one."""
    from nunbit.head import describe_head, is_head, load_head

    if request.text is None or not (is_head(request.text) or request.text.endswith(".head")):
        return None
    if describe_head(request.text)["about"].get("kind") != "concept":
        hint = "only what `nunbit adapt concept` makes can be searched for"
        raise UsageError(f"{request.text} holds several classes", hint=hint)
    return load_head(request.text, encoder)
