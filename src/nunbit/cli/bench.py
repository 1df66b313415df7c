"""``nunbit bench``."""

from __future__ import annotations

import click

from nunbit.cli.arguments import engine_option, exact_option, expand_paths, model_option, no_photograph, open_encoder
from nunbit.cli.output import print_json


@click.command("bench")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@model_option
@engine_option
@exact_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(paths: tuple[str, ...], model: str, engine: str | None, exact: bool, as_json: bool) -> None:
    """Measure how quick each step from a file to an embedding is, on your own pictures.

    \b
    Examples:
      nunbit bench photos/
      nunbit bench photos/ --model my-clip --engine torch
    """
    from nunbit.config import to_plain
    from nunbit.images import find_images
    from nunbit.stage_speed import measure_stages
    from nunbit.types import Rejected

    files = [path for path in find_images(expand_paths(paths)) if not isinstance(path, Rejected)]
    if not files:
        raise no_photograph(paths)
    encoder = open_encoder(model, engine)
    stages = measure_stages(encoder, files, exact=exact)
    if as_json:
        print_json({"model": model, "engine": encoder.engine.name, "stages": to_plain(stages)})
        return
    click.echo(f"{model}, {encoder.engine.name}; pictures a second")
    click.echo(f"{'':22}{'one thread':>12}{'all cores':>12}")
    for stage in stages:
        alone = "" if stage.alone is None else f"{stage.alone:.0f}"
        click.echo(f"{stage.stage:22}{alone:>12}{stage.threads:12.0f}")
