"""``nunbit chat``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

import click

from nunbit.cli.talking import MODEL_HELP, show, take_options, talk_options
from nunbit.errors import NunbitError
from nunbit.picture_files import one_line


@click.command("chat")
@click.argument("pictures", nargs=-1, type=click.Path(), metavar="[PICTURE]...")
@click.option("--model", required=True, metavar="MODEL", help=MODEL_HELP)
@click.option("--say", multiple=True, metavar="TEXT", help="Say this instead of reading lines; may be repeated.")
@click.option("--system", metavar="TEXT", help="What the model is told first.")
@talk_options
def command(**options: Any) -> None:
    """Talk about pictures with a vision-language model.

    A line of standard input is a turn. Earlier turns are remembered; an empty line is passed over.

    \b
    Examples:
      nunbit chat photo.jpg --model tiny-vlm
      nunbit chat photo.jpg query.jpg --model tiny-vlm --say "What do they share?" --say "고양이가 있어?"
      nunbit chat photo.jpg --model https://api.openai.com/v1#gpt-4o --key-env OPENAI_API_KEY
      nunbit chat photo.jpg --model http://localhost:8000/v1
    """
    from nunbit.chat import Message
    from nunbit.images import open_image

    shared = take_options(options)
    config = shared.config()
    (opener,) = shared.open([options["model"]])
    pictures = tuple(open_image(path)[0] for path in options["pictures"])
    talker = opener()
    messages = [Message("system", (options["system"],))] if options["system"] else []
    shown = False
    for line in _lines(options["say"]):
        asked = Message("user", (line,) if shown else (*pictures, line))
        try:
            answer = show(talker.talk([*messages, asked], config))
        except NunbitError as error:
            if options["say"] or not _is_person():
                raise
            click.echo(f"error: {one_line(error.message)}\nhint: {one_line(error.hint)}", err=True)  # and asks again
            continue
        messages += [asked, Message("assistant", (answer,))]
        shown = True


def _lines(given: Iterable[str]) -> Iterator[str]:
    """What the user says: as options, or line by line; a person is shown where to type."""
    if given:
        yield from given
        return
    while True:
        if _is_person():
            click.echo("> ", nl=False, err=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


def _is_person() -> bool:
    return sys.stdin.isatty()
