"""``nunbit keys``."""

from __future__ import annotations

from pathlib import Path

import click

from nunbit.cli.output import print_json
from nunbit.serve.keys import KEYS, KeyFile, Scope

_SCOPES = [scope.name.lower() for scope in Scope]
_in = click.option(
    "--in", "index", type=click.Path(file_okay=False, path_type=Path), help="Index whose keys.json is meant."
)
_file = click.option("--file", type=click.Path(dir_okay=False, path_type=Path), help="Another file of keys.")


@click.group("keys")
def command() -> None:
    """API keys of a server: made, listed, revoked. A running server sees the change.

    \b
    Examples:
      nunbit keys add shop --scope read --in photos.nunbit
      nunbit keys list --in photos.nunbit
      nunbit keys revoke shop --in photos.nunbit
    """


@command.command("add")
@click.argument("name")
@click.option("--scope", type=click.Choice(_SCOPES), default="read", show_default=True, help="What it is good for.")
@_in
@_file
def add(name: str, scope: str, index: Path | None, file: Path | None) -> None:
    """Make a key and print it, once: only its hash is kept.

    \b
    Examples:
      nunbit keys add shop --scope write --in photos.nunbit
    """
    keys = _keys(index, file)
    click.echo(keys.add(name, Scope[scope.upper()]))
    click.echo(f"keep it: it cannot be shown again; its hash is in {keys.path}", err=True)


@command.command("list")
@_in
@_file
@click.option("--json", "as_json", is_flag=True, help="One JSON line a key.")
def list_(index: Path | None, file: Path | None, as_json: bool) -> None:
    """List names and scopes.

    \b
    Examples:
      nunbit keys list --in photos.nunbit
    """
    for entry in _keys(index, file).entries():
        if as_json:
            print_json({"name": entry.name, "scope": entry.scope.name.lower(), "created": entry.created})
        else:
            click.echo(f"{entry.name:24} {entry.scope.name.lower():6} {entry.created}")


@command.command("revoke")
@click.argument("name")
@_in
@_file
def revoke(name: str, index: Path | None, file: Path | None) -> None:
    """Make a key worthless.

    \b
    Examples:
      nunbit keys revoke shop --in photos.nunbit
    """
    _keys(index, file).revoke(name)
    click.echo(f"revoked {name}", err=True)


def _keys(index: Path | None, file: Path | None) -> KeyFile:
    if (index is None) == (file is None):
        raise click.UsageError("give the index with --in, or a file of keys with --file")
    return KeyFile(file if file is not None else Path(str(index)) / KEYS)
