"""``nunbit doctor``."""

from __future__ import annotations

import importlib.metadata
import platform

import click

PACKAGES = ("torch", "numpy", "pillow", "lancedb", "pyarrow", "sentencepiece", "safetensors")


@click.command("doctor")
def command() -> int:
    """Check that everything nunbit needs is here and sound; exit 1 if not.

    \b
    Examples:
      nunbit doctor
    """
    from nunbit.errors import NunbitError
    from nunbit.starter.packages import PACKAGED_FILES

    click.echo(f"nunbit {importlib.metadata.version('nunbit')} on Python {platform.python_version()}")
    problems = 0
    for package in PACKAGES:
        try:
            click.echo(f"ok   {package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            problems += 1
            click.echo(f"FAIL {package} is not installed (pip install {package})")
    for file in PACKAGED_FILES:
        try:
            click.echo(f"ok   {file.locate().name} ({file.distribution}), sha256 verified")
        except NunbitError as error:
            problems += 1
            click.echo(f"FAIL {error}")
    if not problems:
        problems = _answer_check()
    click.echo("everything is in order" if not problems else f"{problems} problems")
    return 1 if problems else 0


def _answer_check() -> int:
    """A model may load and still answer wrong, so one answer is computed."""
    import numpy as np

    from nunbit.loading import load

    encoder = load("starter")
    cat, korean_cat, truck = encoder.encode_text(["a cat", "고양이", "a truck"])
    picture = encoder.encode_image([np.full((64, 64, 3), 128, np.uint8)])
    sound = float(cat @ korean_cat) > float(cat @ truck) and abs(float(np.linalg.norm(picture)) - 1) < 1e-4
    click.echo("ok   the starter answers" if sound else "FAIL the starter answers wrongly")
    return 0 if sound else 1
