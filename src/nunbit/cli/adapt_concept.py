"""``nunbit adapt concept``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nunbit.cli.arguments import engine_option, expand_paths, no_photograph, open_encoder, templates_option
from nunbit.cli.output import print_json, report_rejected
from nunbit.errors import UsageError

if TYPE_CHECKING:
    from nunbit.adapt import Concept
    from nunbit.encode import Encoder
    from nunbit.types import FloatArray


_MANY = 0.1  # of an index may not be the thing itself, but for odd indexes


@dataclass(frozen=True, slots=True)
class Request:
    """The options of ``concept``, under the names that click gives them."""

    name: str
    photographs: tuple[str, ...]
    index: Path
    into: Path
    labels: str
    templates: str
    false_alarms: float
    report: Path | None
    engine: str | None
    as_json: bool


@click.command("concept")
@click.argument("name")
@click.argument("photographs", nargs=-1, required=True, metavar="PHOTOGRAPH...")
@click.option("--in", "index", type=click.Path(path_type=Path), required=True, help="Index of other pictures.")
@click.option("--into", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the head.")
@click.option("--labels", default="", help='Other classes, by words alone: "a cup,a plate".')
@templates_option
@click.option(
    "--false-alarms",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.01,
    show_default=True,
    help="Share of other pictures of the index that may be called by its name.",
)
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with what it looks like.")
@engine_option
@click.option("--json", "as_json", is_flag=True, help="The figures as one JSON line.")
def command(**options: Any) -> None:
    """Learn one very thing, NAME, from three to five photographs of it.

    It is told from the pictures of an index that are most like it. The index may hold pictures of the thing itself.

    \b
    Examples:
      nunbit adapt concept "my mug" mug/ --in photos.nunbit --into mug.head
      nunbit adapt concept "my mug" mug/ --in photos.nunbit --into mug.head --labels "a cup,a plate" --report mug.html
      nunbit search mug.head --in photos.nunbit
    """
    from nunbit.adapt import Example, Examples, class_texts, embed_examples, learn_concept
    from nunbit.head import save_head
    from nunbit.index.folder import encoder_name

    request = Request(**options)
    encoder = open_encoder(encoder_name(request.index) or "starter", request.engine)
    examples = [Example(str(path), str(path), (request.name,)) for path in _pictures(request.photographs)]
    shots, kept, rejected = embed_examples(encoder, Examples((request.name,), tuple(examples), False, ()))
    paths, rows = _read_index(request.index, encoder)
    labels = [label.strip() for label in request.labels.split(",") if label.strip()]
    learned = learn_concept(
        request.name,
        shots.rows,
        rows,
        class_texts(encoder, labels, request.templates) if labels else None,
        logit_scale=encoder.logit_scale,
        groups=shots.groups,
        false_alarms=request.false_alarms,
    )
    about = {"kind": "concept", **_figures(learned), "photographs": len(kept), "rejected": len(rejected)}
    save_head(learned.head, request.into, encoder, about)
    report_rejected(rejected)
    if request.report is not None:
        _write_page(request.report, learned, [one.name for one in kept], paths)
    if request.as_json:
        print_json(about)
    else:
        _print(learned)
    click.echo(f"wrote {request.into}", err=True)


def _read_index(folder: Path, encoder: Encoder) -> tuple[list[str], FloatArray]:
    """Paths and rows of all pictures."""
    import numpy as np

    from nunbit.index import Index

    paths: list[str] = []
    rows: list[FloatArray] = []
    with Index.open(folder, encoder, create=False) as index, index.snapshot() as parts:
        for items, vectors in parts:
            paths += [item.path for item in items]
            rows.append(vectors)
    if not paths:
        raise UsageError(f"the index {folder} is empty", hint="index pictures of other things, best of its kind")
    return paths, np.concatenate(rows)


def _pictures(paths: Sequence[str]) -> list[Path]:
    from nunbit.images import find_images

    found = [path for path in find_images(expand_paths(paths)) if isinstance(path, Path)]
    if not found:
        raise no_photograph(paths)
    return found


def _figures(learned: Concept) -> dict[str, Any]:
    return {
        "found": learned.found.tolist(),
        "perhaps": len(learned.perhaps),
        "hard": len(learned.hard),
        "index": len(learned.scores),
        "labels": {
            name: {"before": before, "taken": taken}
            for name, before, taken in zip(
                learned.head.classnames[1:], learned.before.tolist(), learned.taken.tolist(), strict=False
            )
        },
    }


def _print(learned: Concept) -> None:
    name = learned.head.classnames[0]
    if len(learned.found):
        first = int((learned.found == 0).sum())
        click.echo(f"{first} of {len(learned.found)} photographs, left out in turn, come before everything else")
    else:
        click.echo("there is one photograph, or all are near duplicates: whether it would be found is not known")
    if len(learned.perhaps):
        click.echo(f"{len(learned.perhaps)} pictures of the index may show {name} itself; they taught nothing")
        if len(learned.perhaps) > _MANY * len(learned.scores):
            click.echo("that is many: photographs that are more alike would tell it better from its kind")
    for label, before, taken in zip(
        learned.head.classnames[1:], learned.before.tolist(), learned.taken.tolist(), strict=False
    ):
        click.echo(f"{label}: {before} pictures before, {before - taken} now; {taken} are called {name}")


def _write_page(into: Path, learned: Concept, photographs: list[str], index: list[str]) -> None:
    from nunbit.adapt import ConceptPictures, concept_page
    from nunbit.durable import replace_file

    page = concept_page(learned, ConceptPictures(photographs, index))
    into.parent.mkdir(parents=True, exist_ok=True)
    replace_file(into, lambda file: file.write(page))
    click.echo(f"wrote {into}", err=True)
