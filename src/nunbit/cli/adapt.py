"""``nunbit adapt``: learning from a few examples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nunbit.cli.adapt_concept import command as concept
from nunbit.cli.adapt_options import fit_options
from nunbit.cli.adapt_report import command as report
from nunbit.cli.arguments import (
    engine_option,
    model_option,
    open_encoder,
    templates_option,
)
from nunbit.cli.output import print_json, report_rejected

if TYPE_CHECKING:
    from nunbit.adapt import FitOptions, Fitted
    from nunbit.encode import Encoder


@click.group("adapt", no_args_is_help=False)
def command() -> None:
    """Learn your own classes from a few pictures of each.

    \b
    Examples:
      nunbit adapt fit products/ --into products.head
      nunbit recognize photo.jpg --labels products.head
    """


command.add_command(report)
command.add_command(concept)


@dataclass(frozen=True, slots=True)
class FitRequest:
    """The options of ``fit``, under the names that click gives them."""

    examples: str
    into: Path
    labels: str
    templates: str
    descriptions: Path | None
    rungs: str
    settings: tuple[str, ...]
    model: str
    engine: str | None
    as_json: bool

    def more_labels(self) -> list[str]:
        """Classes that may have no example."""
        return [label for label in self.labels.split(",") if label.strip()]

    def how(self) -> FitOptions:
        """As `nunbit.adapt` takes it; whatever cannot be meant is found before a model is loaded."""
        from nunbit.adapt import read_descriptions

        descriptions = None if self.descriptions is None else read_descriptions(self.descriptions)
        return fit_options(self.templates, self.rungs, self.settings, descriptions)


@command.command("fit")
@click.argument("examples", type=click.Path(exists=True))
@click.option("--into", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the head.")
@click.option("--labels", default="", help='More classes, that may have no example: "cat,dog".')
@templates_option
@click.option(
    "--descriptions",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What classes look like, as `nunbit adapt questions` asks for it.",
)
@click.option(
    "--rungs",
    default="auto",
    show_default=True,
    help="What is tried, between commas; auto: what takes seconds; all: prompt and tower tuning, too.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="What is promised: coverage=0.9, unknown=neighbors|energy|negatives|none, false_alarms=0.05, negatives=FILE.",
)
@model_option
@engine_option
@click.option("--json", "as_json", is_flag=True, help="The table as one JSON line.")
def fit(**options: Any) -> None:
    """Learn classes from EXAMPLES: a folder with a folder of pictures a class, or a table with image and label.

    Every rung, from the words alone to trained heads, is tried on examples that are held out in turn; the best one is
    learned from all of them. No other pictures are needed, and none are used.

    \b
    Examples:
      nunbit adapt fit products/ --into products.head
      nunbit adapt fit labels.csv --into shop.head --labels "cup,plate" --templates photo
      nunbit adapt fit products/ --into products.head --rungs zero-shot,linear-probe --json
    """
    from nunbit.adapt import fit_head, read_examples, save_fitted
    from nunbit.console import progress_bar

    request = FitRequest(**options)
    how = request.how()
    examples = read_examples(request.examples, request.more_labels())
    encoder = open_encoder(request.model, request.engine)
    with progress_bar("learning") as show:
        fitted = fit_head(encoder, examples, how, progress=show)
    save_fitted(fitted, request.into, encoder, _about(request, fitted, encoder))
    report_rejected(fitted.rejected)
    if request.as_json:
        print_json(_about(request, fitted, encoder))
    else:
        _print_table(fitted)
    click.echo(f"wrote {request.into}", err=True)


@command.command("questions")
@click.argument("examples", type=click.Path(exists=True))
@click.option("--into", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The file to write.")
@click.option("--labels", default="", help='More classes, that may have no example: "cat,dog".')
def questions(examples: str, into: Path, labels: str) -> None:
    """Write what to ask a language model, or a person, about the classes of EXAMPLES.

    With "descriptions" filled in, the file goes to `nunbit adapt fit --descriptions`. No model is called.

    \b
    Examples:
      nunbit adapt questions products/ --into questions.jsonl
      nunbit adapt fit products/ --into products.head --descriptions questions.jsonl
    """
    from nunbit.adapt import read_examples, write_questions

    classnames = read_examples(examples, [label for label in labels.split(",") if label.strip()]).classnames
    write_questions(classnames, into)
    click.echo(f"wrote {into}: {len(classnames)} classes", err=True)


def _about(request: FitRequest, fitted: Fitted, encoder: Encoder) -> dict[str, Any]:
    """The documented JSON form, which is kept in the head, too."""
    rows = [
        {
            "rung": result.name,
            "accuracy": None if result.accuracy is None else round(result.accuracy, 2),
            "interval": None if result.interval is None else [round(end, 2) for end in result.interval],
            "setting": result.setting,
            "seconds": round(result.seconds, 3),
            "megabytes": round(result.megabytes, 3),
        }
        for result in fitted.ladder.results
    ]
    measured, answers = fitted.measured, fitted.head.answers
    errors = None if measured is None else [measured.plain_error, measured.calibrated_error]
    return {
        "rung": fitted.ladder.best.name,
        "classes": len(fitted.head.classnames),
        "examples": len(fitted.examples),
        "rejected": len(fitted.rejected),
        "model": encoder.name,
        "templates": request.templates,
        "rungs": rows,
        "calibration_error": None if errors is None else [round(error, 4) for error in errors],
        "coverage": None if answers is None else answers.coverage,
        "answer_threshold": None if answers is None else answers.threshold,
    }


def _print_table(fitted: Fitted) -> None:
    shots = fitted.shots.targets.sum(0)
    without = int((shots == 0).sum())
    few, most = int(shots[shots > 0].min()), int(shots.max())
    spread = f"{few}" if few == most else f"{few} to {most}"
    click.echo(
        f"{len(fitted.examples)} examples, {len(shots)} classes, {spread} each"
        + (f", {without} without any" if without else "")
    )
    click.echo(f"\n  {'rung':16}{'held out, %':>12}  {'95 %':^13}{'seconds':>9}{'MB':>8}")
    for result in fitted.ladder.results:
        mark = ">" if result is fitted.ladder.best else " "
        accuracy = "-" if result.accuracy is None else f"{result.accuracy:.1f}"
        interval = "" if result.interval is None else f"{result.interval[0]:.1f} - {result.interval[1]:.1f}"
        click.echo(f"{mark} {result.name:16}{accuracy:>12}  {interval:^13}{result.seconds:9.2f}{result.megabytes:8.2f}")
    if fitted.ladder.best.accuracy is None:
        click.echo("\nNothing could be held out: give two pictures of each class to compare rungs and to calibrate.")
    elif fitted.measured is not None:
        before, after = 100 * fitted.measured.plain_error, 100 * fitted.measured.calibrated_error
        click.echo(f"\nProbabilities are off by {after:.1f} points on average; before calibration by {before:.1f}.")
    if fitted.tuned is not None:
        click.echo("The picture tower was changed, and is kept with the head.")
