"""``nunbit engines``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nunbit.cli.arguments import tell
from nunbit.cli.output import print_json

if TYPE_CHECKING:
    from nunbit.agreement import EngineAccuracy
    from nunbit.engine.names import Precision
    from nunbit.engine.record import Record, TowerRecord


@click.command("engines")
@click.argument("model", default="starter", metavar="[MODEL]")
@click.option(
    "--pictures",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="A picture or folder to calibrate int8 on, instead of the project's own; repeatable.",
)
@click.option(
    "--on",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder of classes to check accuracy on.",
)
@click.option("--templates", default="none", show_default=True, help="For --on, as in recognize.")
@click.option("--again", is_flag=True, help="Prepare and measure again.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(
    model: str, pictures: tuple[Path, ...], on: Path | None, templates: str, again: bool, as_json: bool
) -> None:
    """Show what can compute a MODEL on this machine, how exact it is and how quick, and what `auto` takes.

    \b
    Examples:
      nunbit engines
      nunbit engines my-clip --pictures photos/
      nunbit engines my-clip --on labeled-photos/
    """
    from nunbit.agreement import compare_accuracy, engine_record
    from nunbit.engine.machine import this_machine
    from nunbit.loading import locate, model_source

    source = model_source(locate(model), model)
    record = engine_record(source, pictures=pictures or None, again=again, tell=tell)
    accuracies: list[EngineAccuracy] = []
    if on is not None:
        record, accuracies = compare_accuracy(source, record, on, templates=templates, tell=tell)
    if as_json:
        print_json(_as_json(record, accuracies))
        return
    click.echo(f"{model} on {this_machine()}")
    for line in _lines(record):
        click.echo(line)
    for found in accuracies:
        click.echo(f"top-1 on {on}: {found.top1:5.1f} with {found.engine}, in {found.seconds:.1f} s")


def _lines(record: Record) -> list[str]:
    if record.problem:
        return [f"torch computes: {record.problem}"]
    from nunbit.engine.opening import choose

    taken = choose(record)
    lines = [f"{'':18}{'cosine':>9}{'lowest':>9}{'per second':>12}"]
    for title, tower, precision in (("pictures", record.image, taken.image), ("texts", record.text, taken.text)):
        if tower is not None:
            lines += [title, *_tower_lines(tower, precision)]
    return [*lines, f"calibrated and checked on {record.calibration}"]


def _tower_lines(tower: TowerRecord, taken: Precision | None) -> list[str]:
    """A tower's engines; ``taken`` by ``auto``, None for torch."""
    lines = [f"  {'torch float32':16}{1:9.5f}{1:9.5f}{tower.torch_rate:12.1f}{'' if taken else '  <- auto'}"]
    for check in tower.checks:
        note = "  <- auto" if check.precision == taken else f"  refused: {check.refused}" if check.refused else ""
        numbers = f"{check.cosine:9.5f}{check.lowest:9.5f}{check.rate:12.1f}"
        lines.append(f"  {f'openvino {check.precision}':16}{numbers}{note}")
    return lines


def _as_json(record: Record, accuracies: list[EngineAccuracy]) -> dict[str, Any]:
    from nunbit.config import to_plain

    return {**to_plain(record), "accuracies": [to_plain(found) for found in accuracies]}
