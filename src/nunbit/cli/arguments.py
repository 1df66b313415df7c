"""What several subcommands read from their arguments."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nunbit.errors import UsageError

if TYPE_CHECKING:
    from nunbit.encode import Encoder

model_option = click.option("--model", default="starter", show_default=True, help="Name, folder or hub id.")
engine_option = click.option(
    "--engine",
    default=None,
    metavar="NAME",
    help="What computes: auto (default), torch, openvino[-fp32|-bf16|-int8] or onnxruntime; see `nunbit engines`.",
)

templates_option = click.option(
    "--templates",
    default="none",
    show_default=True,
    help="Sentences around the labels: none, photo, openai7, openai80, siglip or korean.",
)

exact_option = click.option("--exact", is_flag=True, help="Decode JPEGs in full; the answers differ by rounding.")


def open_encoder(model: str, engine: str | None) -> Encoder:
    """Load a model; what takes long is told on stderr."""
    from nunbit.loading import load

    return load(model, engine=engine, tell=tell)


def tell(words: str) -> None:
    """Say on stderr what is being done."""
    click.echo(f"{words} ...", err=True)


def expand_paths(paths: Sequence[str]) -> list[str]:
    """The paths as given; a single ``-`` stands for one path a line on standard input."""
    return sys.stdin.read().splitlines() if list(paths) == ["-"] else list(paths)


def read_labels_file(path: Path) -> list[str]:
    """One label a line; empty lines are passed over.

    Raises:
        UsageError: It is not written in UTF-8.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not written in UTF-8", hint="save it as UTF-8") from error
    return [line for line in lines if line.strip()]


def no_photograph(paths: Sequence[str]) -> UsageError:
    """The error for paths that lead to no picture at all."""
    missing = [path for path in paths if path != "-" and not os.path.exists(path)]
    if missing:
        message = f"there is no file or folder {', '.join(missing)}"
        return UsageError(message, hint="is the name right, and is it below this folder?")
    return UsageError(f"no photograph found in {', '.join(paths)}", hint="give a picture or a folder of pictures")
