"""``nunbit ask``."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from nunbit.cli.output import print_json
from nunbit.cli.talking import MODEL_HELP, show, take_options, talk_options
from nunbit.errors import NunbitError
from nunbit.picture_files import one_line

if TYPE_CHECKING:
    from nunbit.chat import Message, Talker
    from nunbit.generate import GenerationConfig


@dataclass(frozen=True, slots=True)
class Asked:
    """One question, for any model."""

    messages: list[Message]
    config: GenerationConfig
    as_json: bool
    several: bool

    def of(self, name: str, opener: Callable[[], Talker]) -> bool:
        """Print the answer of a model, or why there is none; an error of the only one is raised.

        Returns:
            Whether there is an answer.
        """
        if self.several and not self.as_json:
            click.echo(f"── {one_line(name)}")
        try:
            talker = opener()
            begun = time.perf_counter()
            answer = self._say(talker)
            took = time.perf_counter() - begun
        except NunbitError as error:
            if not self.several:
                raise
            self._refuse(name, error)
            return False
        if self.as_json:
            print_json({"model": name, "answer": answer, "seconds": round(took, 3)})
        elif self.several:
            click.echo(f"({took:.1f} s)\n")
        return True

    def _say(self, talker: Talker) -> str:
        pieces = talker.talk(self.messages, self.config)
        return "".join(pieces) if self.as_json else show(pieces)

    def _refuse(self, name: str, error: NunbitError) -> None:
        if self.as_json:
            print_json({"model": name, "error": error.message, "hint": error.hint})
        else:
            click.echo(f"error: {one_line(error.message)}\nhint: {one_line(error.hint)}\n")


@click.command("ask")
@click.argument("picture", type=click.Path())
@click.argument("question")
@click.option("--model", "models", multiple=True, required=True, metavar="MODEL", help=f"{MODEL_HELP} May be repeated.")
@talk_options
@click.option("--json", "as_json", is_flag=True, help="One JSON line a model.")
def command(**options: Any) -> int:
    """Ask one question about a picture, of one model or of several side by side.

    Of several, one that fails is reported in its place and the others are asked; then the exit code is 1.

    \b
    Examples:
      nunbit ask photo.jpg "What animal is it?" --model tiny-vlm
      nunbit ask photo.jpg "무슨 동물이야?" --model tiny-vlm --max-new-tokens 20 --json
      nunbit ask photo.jpg "What is it?" --model tiny-vlm --model http://localhost:8000/v1
    """
    from nunbit.chat import Message
    from nunbit.images import open_image

    shared = take_options(options)
    models = options["models"]
    openers = shared.open(models, questions=1)
    messages = [Message("user", (open_image(options["picture"])[0], options["question"]))]
    asked = Asked(messages, shared.config(), options["as_json"], several=len(models) > 1)
    answered = [asked.of(name, opener) for name, opener in zip(models, openers, strict=True)]
    return 0 if all(answered) else 1
