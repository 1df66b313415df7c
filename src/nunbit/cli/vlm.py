"""``nunbit vlm``."""

from __future__ import annotations

import re

import click

from nunbit.cli.output import print_json
from nunbit.errors import UsageError


@click.group("vlm")
def command() -> None:
    """Plan, check and train models that see and talk.

    \b
    Examples:
      nunbit vlm plan smolvlm
      nunbit vlm plan llava-1.5 --tiny
    """


@command.command("plan")
@click.argument("preset")
@click.option("--tiny", is_flag=True, help="The same shape in small.")
@click.option("--picture", default="640x480", show_default=True, metavar="WxH", help="Size of a sample's picture.")
@click.option("--text-tokens", default=128, show_default=True, help="Tokens of a sample's words.")
@click.option("--set", "overrides", multiple=True, metavar="NAME=VALUE", help="Replace a setting; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def plan(preset: str, tiny: bool, picture: str, text_tokens: int, overrides: tuple[str, ...], as_json: bool) -> None:
    """Say what a model will be before anything is built: parts, shapes, memory and time of each stage.

    PRESET is a name, or a YAML file of your own in the form of one. Nothing is allocated, whatever its size.

    \b
    Examples:
      nunbit vlm plan smolvlm
      nunbit vlm plan llava-1.5 --tiny
      nunbit vlm plan nanovlm --set projector.factor=7 --json
    """
    from nunbit.config import to_plain
    from nunbit.vlm.assembly import read_preset
    from nunbit.vlm.plan import PlanSample, make_plan, render_plan

    sides = re.fullmatch(r"(\d+)x(\d+)", picture)
    if sides is None:
        raise UsageError(f"--picture is {picture!r}", hint="write width and height in pixels, as in 640x480")
    config = read_preset(preset, tiny=tiny, overrides=overrides)
    found = make_plan(config, PlanSample(int(sides[1]), int(sides[2]), text_tokens))
    if as_json:
        print_json({"preset": preset, "tiny": tiny, **to_plain(found)})
        return
    for line in render_plan(found, f"{preset}, tiny" if tiny else preset):
        click.echo(line)
