"""``nunbit serve``."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nunbit.cli.arguments import engine_option, tell
from nunbit.cli.talking import host_of
from nunbit.errors import StoreNotFound, UsageError

if TYPE_CHECKING:
    from nunbit.chat import Talker
    from nunbit.serve.server import Server
    from nunbit.serve.settings import Settings

_WITHIN = click.Path(exists=True, file_okay=False, path_type=Path)


@dataclass(frozen=True, slots=True)
class Request:
    """The options of the subcommand, under the names that click gives them."""

    index: Path
    root: Path | None
    host: str
    port: int
    keys: Path | None
    label_sets: tuple[Path, ...]
    model: str | None
    chat: str | None
    key_env: str | None
    engine: str | None
    limits: tuple[str, ...]
    allow: tuple[str, ...]
    fetch: bool

    def settings(self) -> Settings:
        """As the server takes them."""
        from nunbit.serve.settings import Settings, changed_limits

        return Settings(
            index=self.index.absolute(),
            root=self.root,
            host=self.host,
            port=self.port,
            keys=self.keys,
            origins=tuple(name for name in self.allow if "://" in name),
            hosts=tuple(name for name in self.allow if "://" not in name),
            fetch=self.fetch,
            label_sets={folder.stem: folder for folder in self.label_sets},
            limits=changed_limits(self.limits),
        )


def _show_limits(context: click.Context, _: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    if "help" in values:
        _need_packages()
        from nunbit.serve.settings import limit_lines

        for line in limit_lines():
            click.echo(line)
        context.exit()
    return values


@click.command("serve")
@click.option("--in", "index", required=True, type=click.Path(file_okay=False, path_type=Path), help="Index to serve.")
@click.option("--root", type=_WITHIN, help="Outside of this folder no file is read; below it folders can be indexed.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address; any but loopback needs keys.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 for any free one.")
@click.option("--keys", type=click.Path(dir_okay=False, path_type=Path), help="File of keys, by default in the index.")
@click.option("--labels", "label_sets", multiple=True, type=_WITHIN, help="Label set or head to offer; repeatable.")
@click.option("--model", help="For an index that does not exist yet; otherwise it knows its own.")
@click.option("--chat", metavar="MODEL", help="Answers questions about pictures: a model folder, or URL#MODEL.")
@click.option("--key-env", metavar="NAME", help="Environment variable with the key of --chat's endpoint.")
@engine_option
@click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="NAME=VALUE",
    is_eager=True,
    callback=_show_limits,
    help="Change a limit; --limit help lists them.",
)
@click.option("--fetch", is_flag=True, help="Fetch pictures from public URLs that requests name.")
@click.option("--allow", multiple=True, metavar="NAME", help="Host name, or origin (https://...), that may call.")
def command(**options: Any) -> None:
    """Serve an index: an API that OpenAI's clients speak, and a page to look at it.

    \b
    Examples:
      nunbit serve --in photos.nunbit
      nunbit serve --in photos.nunbit --root photos/ --port 8080
      nunbit serve --in photos.nunbit --chat my-vlm
      nunbit serve --in photos.nunbit --chat https://api.openai.com/v1#gpt-4o --key-env OPENAI_API_KEY
      nunbit serve --in photos.nunbit --limit rate=50 --limit pixels=20000000
    """
    _need_packages()
    _run(Request(**options))


def _run(request: Request) -> None:
    from nunbit.index.folder import encoder_name
    from nunbit.loading import load
    from nunbit.serve.server import configure_logging, make_server

    settings = request.settings()
    if request.key_env is not None and not host_of(request.chat or ""):
        raise UsageError("--key-env is given, and --chat names no endpoint", hint="--chat https://HOST/v1#MODEL")
    name = encoder_name(settings.index)
    model = name or request.model
    if model is None:
        hint = f"nunbit index PHOTOS --into {settings.index}; or --model starter, for one to be filled by uploads"
        raise StoreNotFound(f"there is no index at {settings.index}", hint=hint)
    if request.model not in (None, model):
        raise UsageError(f"the index was made with {model!r}, not with {request.model!r}", hint="leave --model out")
    encoder = load(model, engine=request.engine, tell=tell)
    server = make_server(settings, encoder, talker=_talker(request.chat, request.key_env))
    configure_logging()
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again when it has stopped
        asyncio.run(_serve(server))


def _talker(spec: str | None, key_variable: str | None) -> Talker | None:
    if spec is None:
        return None
    from nunbit.chat import open_talker

    return open_talker(spec, key_variable=key_variable, tell=tell)


async def _serve(server: Server) -> None:
    running = asyncio.ensure_future(server.serve())
    while not server.started and not running.done():
        await asyncio.sleep(0.01)
    if server.started:
        host, port = server.servers[0].sockets[0].getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        click.echo(f"serving {len(server.service.collection.view):,} pictures at http://{shown}:{port}/", err=True)
    await running


def _need_packages() -> None:
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        hint = 'pip install "nunbit[serve]"'
        raise UsageError("the server's packages are not installed", hint=hint) from error
