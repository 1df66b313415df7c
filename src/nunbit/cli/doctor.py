"""``nunbit doctor``."""

from __future__ import annotations

import importlib.metadata
import platform

import click

PACKAGES = ("torch", "openvino", "numpy", "pillow", "lancedb", "pyarrow", "sentencepiece", "tokenizers", "safetensors")


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
    """A model may load and still answer wrong, so its golden outputs are computed again."""
    from nunbit.errors import NunbitError
    from nunbit.golden import compare_golden
    from nunbit.loading import load, locate

    try:
        compare_golden(load("starter", engine="torch"), locate("starter"))
    except NunbitError as error:
        click.echo(f"FAIL {error}")
        return 1
    click.echo("ok   the starter answers as it did when it was made")
    return 0
