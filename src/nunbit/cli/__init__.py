"""The ``nunbit`` command: thin; each subcommand parses, calls one function and prints.

Subcommands are imported when they are called, so that ``nunbit --help`` answers at once.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import click

from nunbit.errors import NunbitError

COMMANDS = {
    "index": "Make a folder of pictures searchable.",
    "search": "Find pictures by words or by a picture.",
    "recognize": "Say which labels fit each picture.",
    "models": "List the models that can be loaded by name.",
    "doctor": "Check that everything nunbit needs is here and sound.",
    "demo": "Index and recognize a few photographs, to see what this is.",
    "train": "Train the starter's bridge again.",
    "evaluate": "Measure the starter beside its baseline.",
}


class LazyGroup(click.Group):
    """A group whose subcommands live in modules of the same name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import one subcommand."""
        if name not in COMMANDS:
            return None
        command: click.Command = import_module(f"nunbit.cli.{name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list from ``COMMANDS``, importing nothing."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="nunbit")
@click.option("--debug", is_flag=True, help="Show the trace of an error.")
@click.pass_context
def nunbit(ctx: click.Context, debug: bool) -> None:
    """Give a service eyes: recognition and search over your own pictures and words."""
    ctx.obj = debug


def main() -> None:
    """Entry point: a user error is one line and one hint on stderr."""
    try:
        result: Any = nunbit.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; what was committed is safe", err=True)
        sys.exit(130)
    except NunbitError as error:
        if "--debug" in sys.argv:
            raise
        click.echo(f"error: {error.message}", err=True)
        if error.hint:
            click.echo(f"hint: {error.hint}", err=True)
        sys.exit(error.exit_code)
    sys.exit(result if isinstance(result, int) else 0)
