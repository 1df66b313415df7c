"""``nunbit export``."""

from __future__ import annotations

from pathlib import Path

import click

from nunbit.cli.output import print_json


@click.command("export")
@click.argument("model", metavar="MODEL")
@click.option("--into", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder to write.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line.")
def command(model: str, into: Path, as_json: bool) -> None:
    """Write a CLIP or SigLIP MODEL as two ONNX files, and compare them with it.

    MODEL is a name, a folder or a hub id. Needs `pip install 'nunbit[export]'`, and onnxruntime for the comparison.

    \b
    Examples:
      nunbit export my-clip --into my-clip-onnx
      nunbit export my-clip --into my-clip-onnx --json
    """
    from nunbit.loading import load
    from nunbit.onnx_export import export_onnx

    written = export_onnx(load(model, engine="torch"), into)
    files = {"image_encoder": written.image_encoder, "text_encoder": written.text_encoder}
    sizes = {name: _megabytes(path) for name, path in files.items()}
    if as_json:
        paths = {name: str(path) for name, path in files.items()}
        print_json({**paths, "megabytes": sizes, "largest_difference": written.difference})
        return
    for name, path in files.items():
        click.echo(f"{path}: {sizes[name]:.1f} MB")
    if written.difference is None:
        click.echo("not compared with torch: onnxruntime is not installed", err=True)
    else:
        click.echo(f"largest difference to torch: {written.difference:.1e}")


def _megabytes(path: Path) -> float:
    """Of a file and of the weights that may stand beside it."""
    beside = path.with_name(f"{path.name}.data")
    size = path.stat().st_size + (beside.stat().st_size if beside.exists() else 0)
    return round(size / 1e6, 3)
