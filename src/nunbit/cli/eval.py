"""``nunbit eval``: what an encoder is worth, in numbers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from nunbit.cli.arguments import engine_option, exact_option, model_option, open_encoder, templates_option
from nunbit.cli.output import print_json, report_rejected
from nunbit.errors import UsageError
from nunbit.picture_files import one_line

if TYPE_CHECKING:
    from nunbit.zero_shot import ClassAccuracy, ZeroShotReport

FOLDER = click.Path(file_okay=False, path_type=Path)


@click.group("eval", no_args_is_help=False)
def command() -> None:
    """Measure how good a model is.

    \b
    Examples:
      nunbit eval zeroshot clothing/test --templates photo
      nunbit eval starter --data shared/data
    """


@dataclass(frozen=True, slots=True)
class ZeroShotRequest:
    """The options of ``zeroshot``, under the names that click gives them."""

    folder: Path
    model: str
    engine: str | None
    templates: str
    classnames: Path | None
    exact: bool
    per_class: bool
    as_json: bool

    def labels(self) -> dict[str, str] | None:
        """Folder name → label, from the file that says so."""
        if self.classnames is None:
            return None
        try:
            labels = json.loads(self.classnames.read_text(encoding="utf-8-sig"))
        except ValueError as error:
            raise UsageError(f"{self.classnames} is no JSON: {error}", hint='write {"folder": "label", ...}') from None
        if not isinstance(labels, dict) or not all(isinstance(label, str) for label in labels.values()):
            raise UsageError(f"{self.classnames} holds something else", hint='write {"folder": "label", ...}')
        return labels


@command.command("zeroshot")
@click.argument("folder", type=FOLDER)
@model_option
@engine_option
@templates_option
@click.option(
    "--classnames",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON, folder name to label; by default the folders' names.",
)
@exact_option
@click.option("--per-class", is_flag=True, help="Every class, the worst first.")
@click.option("--json", "as_json", is_flag=True, help="The figures as one JSON line.")
def zeroshot(**options: Any) -> None:
    """Recognize pictures that are sorted into FOLDER/<class>/ and count how often the class comes out.

    \b
    Examples:
      nunbit eval zeroshot clothing/test --templates photo
      nunbit eval zeroshot clothing/test --templates korean --classnames korean.json --per-class
      nunbit eval zeroshot clothing/test --json
    """
    from nunbit.console import progress_bar
    from nunbit.text.templates import get_templates
    from nunbit.zero_shot import zero_shot

    request = ZeroShotRequest(**options)
    templates, labels = get_templates(request.templates), request.labels()  # checked before a model is loaded
    encoder = open_encoder(request.model, request.engine)
    with progress_bar("recognizing") as show:
        report = zero_shot(
            encoder,
            request.folder,
            templates=templates,
            classnames=labels,
            progress=show,
            exact=request.exact,
        )
    report_rejected(report.rejected)
    if request.as_json:
        print_json(_row(request, report))
    else:
        _print_table(request, report)


def _row(request: ZeroShotRequest, report: ZeroShotReport) -> dict[str, Any]:
    """The documented JSON form."""
    row: dict[str, Any] = {"folder": str(request.folder), "model": request.model, "templates": request.templates}
    row |= {"classes": report.classes, "pictures": report.count, "rejected": len(report.rejected)}
    row |= {name: round(getattr(report, name), 2) for name in ("top1", "top5", "macro")}
    row["seconds"] = round(report.seconds, 3)
    if request.per_class:
        row["per_class"] = {
            name: {"accuracy": round(one.accuracy, 2), "count": one.count} for name, one in _worst_first(report)
        }
    return row


def _print_table(request: ZeroShotRequest, report: ZeroShotReport) -> None:
    click.echo(f"{request.model}, templates {request.templates}: {one_line(str(request.folder))}")
    click.echo(f"{report.count} pictures, {report.classes} classes, {report.seconds:.1f} s\n")
    click.echo(f"{'top-1':20} {report.top1:6.1f} %")
    click.echo(f"{f'top-{min(5, report.classes)}':20} {report.top5:6.1f} %")
    click.echo(f"{'mean of the classes':20} {report.macro:6.1f} %")
    if request.per_class:
        click.echo("\n top-1 %  pictures  class")
        for name, one in _worst_first(report):
            click.echo(f"{one.accuracy:8.1f}  {one.count:8}  {one_line(name)}")


def _worst_first(report: ZeroShotReport) -> list[tuple[str, ClassAccuracy]]:
    return sorted(report.per_class.items(), key=lambda item: (item[1].accuracy, item[0]))


@command.command("starter")
@click.option("--data", type=FOLDER, required=True, help="Holds clothing/, grocery/ and coco/.")
@click.option(
    "--wordnet", type=FOLDER, default=Path("/usr/share/wordnet"), show_default=True, help="WordNet 3.0's files."
)
@click.option("--model", default="starter", show_default=True, help="Name, folder or hub id.")
@click.option(
    "--split", type=click.Choice(["dev", "test"]), default="test", show_default=True, help="Of the photographs."
)
def starter(data: Path, wordnet: Path, model: str, split: str) -> None:
    """Measure a model beside two baselines that need no training. Needs `pip install 'nunbit[train]'`.

    \b
    Examples:
      nunbit eval starter --data shared/data
    """
    from nunbit.data import Split
    from nunbit.evaluate import ConceptBaseline, Scorer, encoder_scorer, evaluate
    from nunbit.loading import load

    scorers: dict[str, Scorer] = {
        model: encoder_scorer(load(model, engine="torch")),
        "baseline, nearest concept": ConceptBaseline(wordnet, soft=False),
        "baseline, soft concepts": ConceptBaseline(wordnet, soft=True),
    }
    click.echo(f"| {split} | clothing | grocery | caption → photo R@5 | mean |\n|---|---|---|---|---|")
    for name, scorer in scorers.items():
        row = evaluate(scorer, data, split=cast("Split", split))
        click.echo(f"| {name} | {row.clothing:.1f} | {row.grocery:.1f} | {row.retrieval:.1f} | {row.mean:.1f} |")
