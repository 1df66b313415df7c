"""What a server is started with."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from nunbit.errors import UsageError
from nunbit.serve.keys import KEYS

MEGABYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client, and all of them together, may ask for.

    Attributes:
        body_bytes: Of one request.
        waiting_bytes: Of the bodies of all requests that are being received or answered; beyond, 429.
        pixels: Of one picture, width times height, judged by its header before it is decoded.
        batch: Pictures and texts of one request.
        waiting: Pictures and texts that wait to be encoded, of all requests; beyond, 429.
        seconds: For a request to be received, and again for it to be answered, or for each piece of a streamed answer.
        header_seconds: For the head of a request to arrive, after its connection or its first byte.
        connections: Open at a time; beyond, 503.
        rate: Requests a second of one key or, without keys, address; 0 for no limit.
        burst: Requests that may come at once before ``rate`` counts.
        chat_waiting: Questions that wait for an answer, of all requests; beyond, 429.
        chat_tokens: Of one answer.
        chat_messages: Of one conversation.
        chat_pictures: Of one conversation; together they may have ``pixels``.
    """

    body_bytes: int = 64 * MEGABYTE
    waiting_bytes: int = 512 * MEGABYTE
    pixels: int = 50_000_000
    batch: int = 256
    waiting: int = 1024
    seconds: float = 60.0
    header_seconds: float = 10.0
    connections: int = 1024
    rate: float = 200.0
    burst: int = 1000
    chat_waiting: int = 8
    chat_tokens: int = 1024
    chat_messages: int = 64
    chat_pictures: int = 8


@dataclass(frozen=True, slots=True)
class Settings:
    """A server's settings.

    Attributes:
        index: Folder of the index that is served.
        root: Beside what was uploaded, no file outside of this folder is ever read; None: the pictures that the index
            names are read, and nothing else can be indexed through the server.
        host: Address to listen on. Anything but loopback asks for keys.
        port: 0 for any free one.
        keys: File of API keys; without a key in it, whoever reaches a loopback address may do everything.
        latency: Seconds that the first of a batch waits for others.
        thumbnail_bytes: What the thumbnails on disk may take.
        origins: Web origins that may call from a browser; none by default.
        hosts: Names by which the server may be called; loopback names and ``host`` always may.
        fetch: Whether pictures are fetched from public http and https URLs that requests name.
        label_sets: Name → folder of a label set or a head that was made before.
        limits: See there.
    """

    index: Path
    root: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    keys: Path | None = None
    latency: float = 0.004
    thumbnail_bytes: int = 1024 * MEGABYTE
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    fetch: bool = False
    label_sets: dict[str, Path] = field(default_factory=dict)
    limits: Limits = Limits()

    @property
    def keys_file(self) -> Path:
        """Where the keys are: ``keys.json`` in the index's folder, unless another file was named."""
        return self.keys or self.index / KEYS


def is_loopback(host: str) -> bool:
    """Tell whether nobody but this machine can reach an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def limit_lines() -> list[str]:
    """Each limit with its default and meaning, for people."""
    meanings = dict(re.findall(r"^ {8}(\w+): (.*)$", Limits.__doc__ or "", re.MULTILINE))
    return [f"{field.name:14} {field.default!s:>10}  {meanings[field.name]}" for field in fields(Limits)]


def changed_limits(changes: Sequence[str]) -> Limits:
    """The limits with changes written as ``NAME=VALUE``.

    Raises:
        UsageError: No such limit, or a value that is none.
    """
    kinds = {name: type(value) for name, value in asdict(Limits()).items()}
    values: dict[str, int | float] = {}
    for change in changes:
        name, _, text = change.partition("=")
        if name not in kinds:
            close = difflib.get_close_matches(name, kinds, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(kinds)}"
            raise UsageError(f"there is no limit {name!r}", hint=hint)
        try:
            value = kinds[name](text.replace("_", ""))
        except ValueError:
            value = -1
        if value < 0 or (value == 0 and name != "rate") or value > 1 << 62:
            raise UsageError(f"the limit {name} is {text!r}, expected a positive number", hint=f"write {name}=100")
        values[name] = value
    return replace(Limits(), **values)  # type: ignore[arg-type]
