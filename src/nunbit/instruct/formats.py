"""Conversations about pictures in the three shapes that data comes in, read and written.

========  =====================================================================================================
llava     ``{"id", "image", "conversations": [{"from": "human", "value": "<image>\\nQ"}, {"from": "gpt", ...}]}``
messages  ``{"messages": [{"role", "content"}], "images": [path]}``; content is a text with ``<image>``, or parts
cauldron  ``{"texts": [{"user", "assistant"}], "images": [path]}``; all pictures stand in front of the first question
========  =====================================================================================================

A file is a JSON list or JSON lines; each row says by its names which shape it has.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from nunbit.durable import replace_file
from nunbit.errors import UsageError
from nunbit.types import Rejected
from nunbit.vlm.conversation import PICTURE, Place, Role, Turn

MARK = "<image>"
Format: TypeAlias = Literal["llava", "messages", "cauldron"]
_ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}


@dataclass(frozen=True, slots=True)
class Described:
    """A picture that is not there, only described: ``{"text": ...}`` where others have a path.

    Attributes:
        text: What it would show.
    """

    text: str


Shown: TypeAlias = Path | Described


def picture_key(image: Shown) -> str:
    """Tells pictures apart, in stores and bundles."""
    return f"described: {image.text}" if isinstance(image, Described) else str(image)


@dataclass(frozen=True, slots=True)
class Conversation:
    """One sample.

    Attributes:
        id: Names it in messages: its own ``id``, or the file and the row.
        turns: What is said.
        images: The pictures, in the order of their places.
    """

    id: str
    turns: tuple[Turn, ...]
    images: tuple[Shown, ...]

    def captioned(self) -> Conversation:
        """The pictures and the first answer, the questions dropped (LLaVA's first stage)."""
        answers = [turn for turn in self.turns if turn.role == "assistant"][:1]  # one without any is refused later
        return Conversation(self.id, (Turn("user", (PICTURE,) * len(self.images)), *answers), self.images)


def read_conversations(
    path: Path, on_rejected: Callable[[Rejected], None], *, images: Path | None = None
) -> Iterator[Conversation]:
    """Read a file.

    Args:
        path: A JSON list, or JSON lines.
        on_rejected: Told of rows that are no conversations.
        images: The folder that paths of pictures start from; by default that of the file.

    Yields:
        The rows, in order; that their pictures are there is not checked.

    Raises:
        UsageError: The file is not there, or no JSON.
    """
    folder = path.parent if images is None else images
    for number, row in enumerate(_rows(path)):
        name = str(row.get("id", f"{path.name}:{number + 1}")) if isinstance(row, dict) else f"{path.name}:{number + 1}"
        try:
            yield _conversation(row, name, folder)
        except KeyError as error:
            on_rejected(Rejected(name, "no conversation", f"{error} is missing in it"))
        except (TypeError, ValueError, AttributeError, IndexError) as error:
            on_rejected(Rejected(name, "no conversation", str(error)))


def write_conversations(path: Path, conversations: Iterable[Conversation], form: Format) -> None:
    """Write JSON lines in one of the shapes; pictures are named from the file's folder where they lie below it.

    Raises:
        UsageError: A conversation that the shape cannot hold, or no such shape.
    """
    if form not in get_args(Format):
        raise UsageError(f"there is no format {form!r}", hint=f"one of: {', '.join(get_args(Format))}")
    write = {"llava": _to_llava, "messages": _to_messages, "cauldron": _to_cauldron}[form]
    lines = (
        json.dumps(write(one, [_name(image, path.parent) for image in one.images]), ensure_ascii=False) + "\n"
        for one in conversations
    )
    replace_file(path, lambda file: file.writelines(line.encode() for line in lines))


def _rows(path: Path) -> Iterator[Any]:
    try:
        with path.open(encoding="utf-8") as file:
            if file.read(1) == "[":
                yield from json.loads("[" + file.read())
                return
            file.seek(0)
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _line(line, path, number)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path} cannot be read as JSON: {error}") from error


def _line(line: str, path: Path, number: int) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return f"line {number} is no JSON"  # a row that is no conversation: set aside like others


def _conversation(row: Mapping[str, Any], name: str, folder: Path) -> Conversation:
    if not isinstance(row, Mapping):
        raise ValueError(str(row)[:80])
    given = row.get("images", row.get("image"))
    listed = [] if given is None else [given] if isinstance(given, (str, dict)) else list(given)
    images = tuple(_shown(one, folder) for one in listed)
    if "conversations" in row:
        turns = [Turn(_role(turn["from"]), _parts(turn["value"])) for turn in row["conversations"]]
    elif "messages" in row:
        turns = [Turn(_role(turn["role"]), _parts(turn["content"])) for turn in row["messages"]]
    elif "texts" in row:
        turns = [
            turn
            for pair in row["texts"]
            for turn in (Turn("user", (pair["user"],)), Turn("assistant", (pair["assistant"],)))
        ]
        turns[0] = Turn("user", (*[PICTURE] * len(images), *turns[0].parts))
    else:
        raise ValueError("none of conversations, messages, texts is there")
    return Conversation(name, tuple(turns), images)


def _role(name: str) -> Role:
    if name not in _ROLES:
        raise ValueError(f"{name!r} speaks, expected one of {', '.join(_ROLES)}")
    return _ROLES[name]


def _shown(given: str | Mapping[str, str], folder: Path) -> Shown:
    if isinstance(given, str):
        return folder / given
    return Described(given["text"]) if "text" in given else folder / given["path"]


def _parts(content: str | Sequence[Mapping[str, Any]]) -> tuple[str | Place, ...]:
    """A text with marks, or a list of parts → texts and places; line breaks around a mark belong to the mark."""
    if isinstance(content, str):
        texts = content.split(MARK)
        found: list[str | Place] = []
        for number, text in enumerate(texts):
            if number:
                found.append(PICTURE)
                text = text.lstrip("\n")
            if number < len(texts) - 1:
                text = text.rstrip("\n")
            if text:
                found.append(text)
        return tuple(found)
    return tuple(PICTURE if part["type"] == "image" else str(part["text"]) for part in content)


def _text(turn: Turn) -> str:
    """Marks stand on lines of their own, as LLaVA has them."""
    out = ""
    for part in turn.parts:
        if part is PICTURE:
            out += ("\n" if out and not out.endswith("\n") else "") + MARK
        else:
            out += ("\n" if out.endswith(MARK) else "") + str(part)
    return out


def _name(image: Shown, folder: Path) -> str | dict[str, str]:
    if isinstance(image, Described):
        return {"text": image.text}
    return image.relative_to(folder).as_posix() if image.is_relative_to(folder) else str(image)


def _to_llava(one: Conversation, images: list[str | dict[str, str]]) -> dict[str, Any]:
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    turns = [{"from": names[turn.role], "value": _text(turn)} for turn in one.turns]
    shown: dict[str, Any] = {} if not images else {"image": images[0] if len(images) == 1 else images}
    return {"id": one.id, **shown, "conversations": turns}


def _to_messages(one: Conversation, images: list[str | dict[str, str]]) -> dict[str, Any]:
    return {
        "id": one.id,
        "messages": [{"role": turn.role, "content": _text(turn)} for turn in one.turns],
        "images": images,
    }


def _to_cauldron(one: Conversation, images: list[str | dict[str, str]]) -> dict[str, Any]:
    spoken = [turn for turn in one.turns if turn.role != "system"]
    late = any(part is PICTURE for turn in spoken[1:] for part in turn.parts)
    if len(spoken) != len(one.turns) or late or len(spoken) % 2:
        hint = "it has no system's words, and all pictures stand in the first question; take messages"
        raise UsageError(f"{one.id} does not fit the format cauldron", hint=hint)
    said = ["".join(str(part) for part in turn.parts if part is not PICTURE) for turn in spoken]
    pairs = [{"user": said[number], "assistant": said[number + 1]} for number in range(0, len(said), 2)]
    return {"id": one.id, "texts": pairs, "images": images}
