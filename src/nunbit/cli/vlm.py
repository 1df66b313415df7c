"""``nunbit vlm``."""

from __future__ import annotations

import re
from pathlib import Path

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
      nunbit vlm check conversations.jsonl
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


@command.command("check")
@click.argument("data", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--images", type=click.Path(file_okay=False, path_type=Path), help="Where paths of pictures start from.")
@click.option("--preset", default="starter", show_default=True, help="The model that is to learn from it.")
@click.option("--language-model", default="smollm2-135m-instruct", show_default=True, help="Its tokenizer's.")
@click.option("--max-tokens", default=1024, show_default=True, help="As training is told.")
@click.option("--json", "as_json", is_flag=True, help="A JSON line for each problem, and one of all.")
def check(data: Path, images: Path | None, preset: str, language_model: str, max_tokens: int, as_json: bool) -> None:
    """Name each conversation in DATA that would teach nothing, before anything is trained.

    DATA is a JSON list or JSON lines: LLaVA's format, messages with images, or the Cauldron's. A picture that is
    missing or broken, marks that do not match the pictures, an answer that is empty or cut off: each is named. Ends
    with 1 when there is any.

    \b
    Examples:
      nunbit vlm check conversations.jsonl
      nunbit vlm check llava.json --images coco/ --max-tokens 512
    """
    from nunbit.config import to_plain
    from nunbit.instruct.doctor import examine
    from nunbit.language_model import load_language_model
    from nunbit.vlm.assembly import assemble, read_preset
    from nunbit.vlm.batching import SampleReader

    reader = SampleReader(assemble(read_preset(preset), load_language_model(language_model)))
    found = examine(data, reader, max_tokens=max_tokens, images=images)
    for problem in found.problems:
        if as_json:
            print_json(to_plain(problem))
        else:
            click.echo(f"{problem.path}: {problem.reason}: {problem.detail}")
    facts = {name: value for name, value in to_plain(found).items() if name != "problems"}
    if as_json:
        print_json(facts | {"kinds": found.kinds})
    else:
        click.echo(
            f"{found.usable:,} of {found.samples:,} conversations can be used: {found.pictures:,} pictures, "
            f"{found.tokens:,} tokens, {found.answer_tokens:,} of answers"
        )
    if found.problems:
        raise SystemExit(1)
