"""``nunbit distill``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nunbit.cli.arguments import engine_option, read_labels_file, tell
from nunbit.cli.output import print_json

if TYPE_CHECKING:
    from nunbit.distill.measures import Comparison


@dataclass(frozen=True, slots=True)
class Request:
    """The options of the subcommand, under the names that click gives them."""

    pictures: tuple[str, ...]
    into: Path
    teacher: str | None
    labels: str | None
    labels_file: Path | None
    config: Path | None
    overrides: tuple[str, ...]
    engine: str | None
    as_json: bool

    def settings(self) -> dict[str, Any]:
        """What was given, by the names that a configuration has."""
        from nunbit.recognition import check_labels

        found: dict[str, Any] = {} if self.teacher is None else {"teacher": self.teacher}
        words = self.labels.split(",") if self.labels else []
        if self.labels_file is not None:
            words += read_labels_file(self.labels_file)
        if words:
            found["labels"] = check_labels([word for word in words if word.strip()])
        return found


@click.command("distill")
@click.argument("pictures", nargs=-1, required=True, metavar="PICTURES...")
@click.option(
    "--into",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder of the run; a run that is there goes on.",
)
@click.option("--teacher", help="Name, folder or hub id of the large model.  [default: starter]")
@click.option("--labels", help='Labels that matter, between commas: "shirt,shoes"; by default everyday things.')
@click.option("--labels-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="One label a line.")
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="Settings, as YAML.")
@click.option("--set", "overrides", multiple=True, metavar="NAME=VALUE", help="Replace a setting; repeatable.")
@engine_option
@click.option("--json", "as_json", is_flag=True, help="Print the result as a JSON line.")
def command(**options: Any) -> None:
    """Teach a small model what a large one sees, on pictures without labels.

    The teacher looks at each picture once, in some ways; the student learns to answer alike. It keeps the teacher's
    space and its text side, so labels and searches by words go on. Interrupted, the run goes on where it was when the
    command is given again. All settings are in docs/distilling.md.

    \b
    Examples:
      nunbit distill photos/ --into small
      nunbit distill photos/ --teacher openai-vit-b-32 --into small --set training.steps=5000
      nunbit distill photos/ --into small --labels "shirt,shoes,hat" --set tower.image_size=128
      nunbit recognize photo.jpg --model small/model --labels "cat,dog"
    """
    from nunbit.distill.run import load_config, run_distillation
    from nunbit.training.watching import console_watcher

    request = Request(**options)
    config = load_config(request.pictures, request.config, request.settings(), overrides=request.overrides)
    with console_watcher(config.training.steps, leads=True, unit="pictures") as watcher:
        result = run_distillation(config, request.into, watcher, engine=request.engine, tell=tell)
    if request.as_json:
        print_json({"model": str(result.model), "report": str(result.report), **_row(result.comparison)})
        return
    for name, words in result.comparison.lines().items():
        click.echo(f"{name}: {words}")
    click.echo(f"model: {result.model}")
    click.echo(f"report: {result.report}")


def _row(found: Comparison) -> dict[str, float]:
    """The documented JSON form."""
    return {
        "teacher_gmacs": found.teacher.gmacs,
        "student_gmacs": found.student.gmacs,
        "teacher_parameters": found.teacher.parameters,
        "student_parameters": found.student.parameters,
        "teacher_pictures_per_second": found.rates[0],
        "student_pictures_per_second": found.rates[1],
        "speedup": found.speedup,
        "cosine": found.cosine,
        "same_label": found.same_label,
    }
