"""The ``nunbit`` command: thin; each subcommand parses, calls one function and prints.

Subcommands are imported when they are called, so that ``nunbit --help`` answers at once.
"""

from __future__ import annotations

import difflib
import sys
import warnings
from importlib import import_module
from typing import Any, NoReturn, TextIO

import click

from nunbit.errors import NunbitError, NunbitWarning, UsageError
from nunbit.picture_files import one_line

COMMANDS = {
    "index": "Make a folder of pictures searchable.",
    "search": "Find pictures by words or by a picture.",
    "recognize": "Say which labels fit each picture.",
    "serve": "Serve an index: an API, and a page to look at it.",
    "backup": "Copy an index while it is in use.",
    "keys": "Make, list and revoke a server's API keys.",
    "labels": "Keep labels by the million, embedded once.",
    "adapt": "Learn your own classes from a few pictures of each.",
    "inspect": "Find what is wrong with parts, from a few good ones.",
    "harvest": "Make picture-text pairs of saved web pages.",
    "curate": "Keep the good records of pictures and texts.",
    "models": "List the models that can be loaded by name.",
    "engines": "Show what computes a model here, how exact and how quick it is.",
    "bench": "Measure how quick each step is on this machine.",
    "doctor": "Check that everything nunbit needs is here and sound.",
    "demo": "Index and recognize a few photographs, to see what this is.",
    "chat": "Talk about pictures with a vision-language model.",
    "ask": "Ask one question about a picture, of one model or several.",
    "caption": "Describe pictures in words.",
    "train": "Train an encoder on pairs of pictures and texts.",
    "distill": "Teach a small model what a large one sees.",
    "vlm": "Plan, check and train models that see and talk.",
    "eval": "Measure how good a model is.",
    "export": "Write a model as ONNX.",
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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the subcommand, or the one that was probably meant."""
        close = difflib.get_close_matches(args[0], COMMANDS, n=1)
        if args[0] not in COMMANDS and close:
            raise UsageError(f"there is no command {args[0]!r}", hint=f"did you mean {close[0]!r}?")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand; a user error is printed without its trace unless ``--debug`` asks for it."""
        try:
            return super().invoke(ctx)
        except NunbitError as error:
            if ctx.params["debug"]:
                raise
            fail(error.message, error.hint, code=error.exit_code)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list from ``COMMANDS``, importing nothing."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="nunbit")
@click.option("--debug", is_flag=True, help="Show the trace of an error.")
def nunbit(debug: bool) -> None:
    """Give a service eyes: recognition and search over your own pictures and words."""


def main() -> None:
    """Entry point: whatever goes wrong is one line and one hint on stderr, and a number for the shell."""
    warnings.showwarning = _show_warning
    try:
        result = nunbit.main(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(0)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        fail(error.format_message(), f"see {context.command_path if context else 'nunbit'} --help", code=2)
    except OSError as error:
        fail(
            f"{error.filename or 'a file'}: {error.strerror or error}",
            "check the path, its rights and the disk",
            code=1,
        )
    except (click.Abort, KeyboardInterrupt):
        fail("interrupted; what was committed is safe", "run it again to go on", code=130)
    sys.exit(result if isinstance(result, int) else 0)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print what the user should know as one line; what only concerns developers not at all."""
    if issubclass(category, NunbitWarning):
        click.echo(f"warning: {one_line(str(message))}", err=True)


def fail(message: str, hint: str, *, code: int) -> NoReturn:
    """Print an error and end the process."""
    click.echo(f"error: {one_line(message)}", err=True)  # it may quote a file that nobody should trust
    if hint:
        click.echo(f"hint: {one_line(hint)}", err=True)
    sys.exit(code)
