"""What the subcommands share that talk with vision-language models: their options, and how models are opened."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import click

from nunbit.cli.arguments import tell
from nunbit.errors import UsageError
from nunbit.picture_files import one_line

if TYPE_CHECKING:
    from nunbit.chat import Talker
    from nunbit.generate import GenerationConfig

F = TypeVar("F", bound=Callable[..., Any])

_PAYS = 20  # questions: as many take longer on torch than an engine from the cache takes to open
MODEL_HELP = "A model folder, of nunbit or transformers; or an endpoint: https://HOST/v1#MODEL."

_OPTIONS = (
    click.option(
        "--key-env",
        "keys",
        multiple=True,
        metavar="[HOST=]NAME",
        help="Environment variable with the key of an endpoint; for several hosts, one for each.",
    ),
    click.option(
        "--engine",
        metavar="NAME",
        help="For nunbit's folders: auto, torch, openvino-fp32, openvino-int8.",
    ),
    click.option("--max-new-tokens", type=click.IntRange(1), default=256, show_default=True, help="Of an answer."),
    click.option("--temperature", type=click.FloatRange(0), default=0.0, show_default=True, help="0: the likeliest."),
    click.option(
        "--top-p", type=click.FloatRange(0, 1, min_open=True), default=1.0, show_default=True, help="Of draws."
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Of draws."),
    click.option("--stop", multiple=True, metavar="TEXT", help="An answer ends in front of this; may be repeated."),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TalkOptions:
    """The shared options, under the names that click gives them."""

    keys: tuple[str, ...]
    engine: str | None
    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int
    stop: tuple[str, ...]

    def config(self) -> GenerationConfig:
        """How answers are drawn."""
        from nunbit.generate import GenerationConfig

        return GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            stop=self.stop,
        )

    def open(self, models: Sequence[str], *, questions: int | None = None) -> list[Callable[[], Talker]]:
        """A way to open each model, when its turn comes.

        Args:
            models: As they were typed.
            questions: How many it will be asked, where that is known: few do not pay for preparing an engine.

        Raises:
            UsageError: It is not clear whose the keys are.
        """
        from functools import partial

        from nunbit.engine.names import AUTO, TORCH, requested_engine

        variables = self._variables(models)
        engine = self.engine
        if requested_engine(engine) == AUTO and questions is not None and questions < _PAYS:
            engine = TORCH
        return [partial(_open, model, variables.get(host_of(model)), engine) for model in models]

    def _variables(self, models: Sequence[str]) -> dict[str, str]:
        """Host → the variable with its key; no key ever goes to a host that it was not given for."""
        hosts = list(dict.fromkeys(filter(None, map(host_of, models))))
        found: dict[str, str] = {}
        for given in self.keys:
            host, named, name = given.rpartition("=")
            if not named and len(hosts) != 1:
                hint = "say whose key it is: --key-env HOST=NAME" if hosts else "folders need no key"
                raise UsageError(f"--key-env {name} for {len(hosts)} endpoints", hint=hint)
            host = host if named else hosts[0]
            if host not in hosts:
                listed = ", ".join(hosts) or "there are none"
                raise UsageError(f"--key-env is given for {host}, which no --model names", hint=f"hosts: {listed}")
            found[host] = name
        return found


def talk_options(command: F) -> F:
    """Add the options that `TalkOptions` holds."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def take_options(options: dict[str, Any]) -> TalkOptions:
    """Take the shared options out of all those of a subcommand."""
    return TalkOptions(**{name: options.pop(name) for name in TalkOptions.__dataclass_fields__})


def show(pieces: Iterable[str]) -> str:
    """Print an answer while it comes; a model's words move no cursor and change no colors.

    Returns:
        The answer as it came.
    """
    said = []
    for piece in pieces:
        said.append(piece)
        lines = piece.replace("\r\n", "\n").split("\n")
        click.echo("\n".join("\t".join(map(one_line, line.split("\t"))) for line in lines), nl=False)
    click.echo()
    return "".join(said)


def host_of(model: str) -> str:
    """Host, and port where one is named, of an endpoint; of others ''."""
    from nunbit.chat.remote import is_endpoint

    return urlsplit(model).netloc if is_endpoint(model) else ""


def _open(model: str, key_variable: str | None, engine: str | None) -> Talker:
    from nunbit.chat import open_talker

    if not host_of(model):
        tell(f"loading {model}")
    return open_talker(model, key_variable=key_variable, engine=engine, tell=tell)
