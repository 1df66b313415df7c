"""``nunbit adapt report``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nunbit.cli.adapt_options import fit_options
from nunbit.cli.arguments import engine_option, model_option, open_encoder, templates_option
from nunbit.cli.output import print_json, report_rejected

if TYPE_CHECKING:
    from nunbit.adapt import FitOptions, Study


@dataclass(frozen=True, slots=True)
class Request:
    """The options of ``report``, under the names that click gives them."""

    examples: str
    into: Path
    test: str | None
    templates: str
    rungs: str
    settings: tuple[str, ...]
    model: str
    engine: str | None
    as_json: bool

    def how(self) -> FitOptions:
        """As `nunbit.adapt` takes it."""
        return fit_options(self.templates, self.rungs, self.settings, None)


@click.command("report")
@click.argument("examples", type=click.Path(exists=True))
@click.option("--into", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The page to write.")
@click.option("--test", type=click.Path(exists=True), help="Other sorted pictures, to measure on.")
@templates_option
@click.option("--rungs", default="auto", show_default=True, help="As for `fit`.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="As for `fit`.")
@model_option
@engine_option
@click.option("--json", "as_json", is_flag=True, help="The figures as one JSON line.")
def command(**options: Any) -> None:
    """See what EXAMPLES are worth: accuracy by shots, probabilities, what is taken for what, what is unknown.

    A third of the examples is kept to measure on, unless --test has other pictures. No head is written.

    \b
    Examples:
      nunbit adapt report products/ --into report.html
      nunbit adapt report products/ --test more/ --into report.html --rungs zero-shot,linear-probe
    """
    from nunbit.adapt import make_study, read_examples, report_page
    from nunbit.console import progress_bar
    from nunbit.durable import replace_file

    request = Request(**options)
    how = request.how()
    examples = read_examples(request.examples)
    test = None if request.test is None else read_examples(request.test, at_least=1)
    encoder = open_encoder(request.model, request.engine)
    with progress_bar("measuring") as show:
        study = make_study(encoder, examples, how, test=test, progress=show)
    page = report_page(study, Path(request.examples).resolve().name, encoder.name)
    request.into.parent.mkdir(parents=True, exist_ok=True)
    replace_file(request.into, lambda file: file.write(page))
    report_rejected(study.rejected)
    if request.as_json:
        print_json(_figures(study))
    else:
        found = study.probabilities
        click.echo(f"{study.fitted.ladder.best.name}: {100 * found.accuracy:.1f} % of {len(study.pictures)} pictures")
    click.echo(f"wrote {request.into}", err=True)


def _figures(study: Study) -> dict[str, Any]:
    """The documented JSON form."""
    curves = {
        rung: {str(count): [round(value, 2) for value in values] for count, values in found.items()}
        for rung, found in study.curves.items()
    }
    unknown = [
        {"auroc": one.auroc, "plain_auroc": one.plain_auroc, "false_alarms": one.false_alarms, "found": one.found}
        for one in study.unknown
    ]
    return {
        "rung": study.fitted.ladder.best.name,
        "pictures": len(study.pictures),
        **asdict(study.probabilities),
        "unknown": unknown,
        "accuracy_by_shots": curves,
    }
