"""``nunbit recognize``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nunbit.cli.arguments import (
    engine_option,
    exact_option,
    expand_paths,
    no_photograph,
    open_encoder,
    read_labels_file,
    templates_option,
)
from nunbit.cli.output import prediction_row, print_json, report_rejected
from nunbit.errors import UsageError
from nunbit.picture_files import one_line
from nunbit.types import Recognition, Rejected

if TYPE_CHECKING:
    from nunbit.encode import Encoder
    from nunbit.types import FloatArray


@dataclass(frozen=True, slots=True)
class Request:
    """The options of the subcommand, under the names that click gives them."""

    paths: tuple[str, ...]
    labels: str | None
    labels_file: Path | None
    templates: str
    top_k: int
    model: str | None
    engine: str | None
    sheet: Path | None
    exact: bool
    strict: bool
    as_json: bool

    def classnames(self) -> list[str]:
        """The labels, from whichever option has them."""
        if (self.labels is None) == (self.labels_file is None):
            raise UsageError("give either --labels or --labels-file", hint='for example --labels "cat,dog,coffee"')
        if self.labels_file is None:
            _check_no_folder(self.labels or "")
            return (self.labels or "").split(",")
        return read_labels_file(self.labels_file)

    def label_set(self) -> Path | None:
        """The folder that ``--labels`` names, where that is a label set."""
        from nunbit.labels.folder import is_begun

        folder = Path(self.labels or "")
        return folder if self.labels and self.labels_file is None and is_begun(folder) else None

    def head(self) -> Path | None:
        """The folder that ``--labels`` names, where that is a head."""
        from nunbit.head import is_head

        folder = Path(self.labels or "")
        return folder if self.labels and self.labels_file is None and is_head(folder) else None

    def encoder(self) -> Encoder:
        """The model that was asked for; else the head's own, else the starter."""
        from nunbit.head import encoder_of

        head = self.head()
        model = self.model or ("starter" if head is None else encoder_of(head))
        if self.model is None and model != "starter" and not Path(model).is_dir():
            raise UsageError(f"{head} was made with {model!r}", hint=f"give --model {model or 'NAME'}")
        return open_encoder(model, self.engine)


@click.command("recognize")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--labels", help='Labels between commas: "cat,dog"; or the folder of a label set or a head.')
@click.option("--labels-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="One label a line.")
@templates_option
@click.option("--top-k", type=click.IntRange(1), default=5, show_default=True, help="Labels shown a picture.")
@click.option("--model", help="Name, folder or hub id; by default the starter, or what a head was made with.")
@engine_option
@click.option("--sheet", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with pictures and bars.")
@exact_option
@click.option("--strict", is_flag=True, help="Exit 1 if any picture was set aside.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line a picture.")
def command(**options: Any) -> int:
    """Say which labels fit each picture best.

    The probabilities are over the labels given; with a model like SigLIP each label has its own.

    \b
    Examples:
      nunbit recognize photo.jpg --labels "cat,dog,coffee"
      nunbit recognize photos/ --labels "고양이,개" --top-k 1 --json
      nunbit recognize photos/ --labels "고양이,개" --templates korean
      nunbit recognize photos/ --labels-file labels.txt --sheet sheet.html
      nunbit recognize photos/ --labels nouns.labels
      nunbit recognize photos/ --labels products.head
    """
    request = Request(**options)
    done: list[Recognition] = []
    rejected: list[Rejected] = []
    for item in _run(request):
        if isinstance(item, Rejected):
            rejected.append(item)
            continue
        if request.sheet is not None:
            done.append(item)
        if request.as_json:
            print_json(_row(item))
        else:
            words = "  ".join(f"{p.label} {p.probability:.0%}" for p in item.predictions)
            words = f"unknown, or {words}" if item.unknown else words
            click.echo(f"{one_line(item.path)}: {words}")
    if request.sheet is not None:
        _write(request.sheet, done)
    report_rejected(rejected)
    return 1 if request.strict and rejected else 0


def _run(request: Request) -> Iterator[Recognition | Rejected]:
    from nunbit.console import track
    from nunbit.encode import encode_stream
    from nunbit.images import find_images
    from nunbit.recognition import check_labels
    from nunbit.text.templates import get_templates

    if request.label_set() is None and request.head() is None:
        check_labels(request.classnames())
    get_templates(request.templates)
    files: list[Path] = []
    for path in find_images(expand_paths(request.paths)):
        if isinstance(path, Rejected):
            yield path
        else:
            files.append(path)
    if not files:
        raise no_photograph(request.paths)
    encoder = request.encoder()
    answer = _answerer(request, encoder)
    stream = encode_stream(encoder, files, exact=request.exact)
    for item in track(stream, label="recognizing", total=len(files)):
        if isinstance(item, Rejected):
            yield item
        else:
            yield answer(str(item.source), item.embedding)


def _answerer(request: Request, encoder: Encoder) -> Callable[[str, FloatArray], Recognition]:
    """The labels of a picture with an embedding: from a head, from a label set, or from the labels given."""
    from nunbit.recognition import Labels

    if (learned := request.head()) is not None:
        from nunbit.head import load_head

        if request.templates != "none":
            raise UsageError("--templates has no effect on a head", hint="give it to `nunbit adapt fit`")
        head = load_head(learned, encoder)
        return lambda path, embedding: head.recognize(embedding, request.top_k, path=path)
    folder = request.label_set()
    if folder is None:
        given = Labels(encoder, request.classnames(), templates=request.templates)
        return lambda path, embedding: given.recognize(embedding, request.top_k, path=path)

    from nunbit.labels import LabelSet
    from nunbit.labels.folder import check_templates
    from nunbit.text.templates import get_templates

    kept = LabelSet.open(folder, encoder)
    if request.templates != "none":
        check_templates(folder, kept.identity, get_templates(request.templates))
    return lambda path, embedding: Recognition(path, kept.predict(embedding[None], request.top_k)[0])


def _check_no_folder(labels: str) -> None:
    """Refuse what is meant as a folder: it would become a label that is never right."""
    path = Path(labels)
    meant = path.suffix in (".head", ".labels") or ("/" in labels and path.parent.is_dir())
    if "," in labels or not (meant or path.is_dir()):
        return
    what = "holds neither a label set nor a head" if path.exists() else "is not there"
    hint = "`nunbit labels build` makes label sets, `nunbit adapt fit` heads; labels stand between commas"
    raise UsageError(f"the folder {labels} {what}", hint=hint)


def _row(item: Recognition) -> dict[str, Any]:
    """The documented JSON form."""
    row: dict[str, Any] = {"path": item.path, "predictions": [prediction_row(one) for one in item.predictions]}
    if item.unknown is not None:
        row["unknown"] = item.unknown
    if item.answers is not None:
        row["answers"] = list(item.answers)
    return row


def _write(sheet: Path, done: list[Recognition]) -> None:
    from nunbit.cli.sheet import Card, write_sheet

    cards = (
        Card(item.path, tuple((p.label, p.probability, f"{p.probability:.0%}") for p in item.predictions))
        for item in done
    )
    write_sheet(sheet, "What nunbit recognizes", cards)
    click.echo(f"wrote {sheet}", err=True)
