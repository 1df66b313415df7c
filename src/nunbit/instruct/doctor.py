"""Looks at conversations before anything is trained on them, and names each sample that would teach nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nunbit.errors import ImageError, NunbitError
from nunbit.images import open_image
from nunbit.instruct.formats import Conversation, Described, picture_key, read_conversations
from nunbit.instruct.lessons import cut
from nunbit.types import Rejected
from nunbit.vlm.batching import SampleReader
from nunbit.vlm.conversation import PICTURE, Layout


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found.

    Attributes:
        samples: Conversations that were read.
        usable: Those that teach something.
        pictures: Different pictures among these.
        tokens: Of the usable ones, pictures counted as the model reads them.
        answer_tokens: Those that are learned.
        problems: What is wrong, sample by sample.
    """

    samples: int
    usable: int
    pictures: int
    tokens: int
    answer_tokens: int
    problems: tuple[Rejected, ...]

    @property
    def kinds(self) -> dict[str, int]:
        """How often each kind of problem comes, the most frequent first."""
        return dict(Counter(problem.reason for problem in self.problems).most_common())


def examine(path: Path, reader: SampleReader, *, max_tokens: int, images: Path | None = None) -> Diagnosis:
    """Read a file, open its pictures, write its samples down as a model would read them.

    Args:
        path: As `nunbit.instruct.formats.read_conversations` takes it.
        reader: Of the model that is to learn.
        max_tokens: As training is told.
        images: The folder that paths of pictures start from; by default that of the file.

    Raises:
        UsageError: The file is not there, or no JSON.
    """
    problems: list[Rejected] = []
    conversations = list(read_conversations(path, problems.append, images=images))
    samples = len(conversations) + len(problems)
    problems += _twice(conversations)
    sizes = _Sizes()
    usable, tokens, asked, seen = 0, 0, 0, set[str]()
    for conversation in conversations:
        problem = _problem(conversation, reader, sizes, max_tokens)
        if isinstance(problem, Rejected):
            problems.append(problem)
            continue
        usable += 1
        tokens += problem[0]
        asked += problem[1]
        seen |= {picture_key(image) for image in conversation.images}
    return Diagnosis(samples, usable, len(seen), tokens, asked, tuple(problems))


class _Sizes:
    """Width and height of pictures, each opened once."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, int] | Rejected] = {}

    def of(self, image: Path) -> tuple[int, int] | Rejected:
        name = str(image)
        if name not in self._known:
            self._known[name] = self._open(image)
        return self._known[name]

    def _open(self, image: Path) -> tuple[int, int] | Rejected:
        if not image.is_file():
            return Rejected(str(image), "picture is missing", f"there is no {image}")
        try:
            return open_image(image)[0].size
        except ImageError as error:
            return Rejected(str(image), "picture cannot be read", f"{image}: {error.message}")


def _problem(
    conversation: Conversation, reader: SampleReader, sizes: _Sizes, max_tokens: int
) -> Rejected | tuple[int, int]:
    """What is wrong with a sample; else how many tokens it has and how many are learned."""
    places = sum(part is PICTURE for turn in conversation.turns for part in turn.parts)
    if places != len(conversation.images):
        detail = f"{places} marks for {len(conversation.images)} pictures"
        return Rejected(conversation.id, "marks do not match", detail)
    layouts: list[Layout] = []
    for image in conversation.images:
        size = (1, 1) if isinstance(image, Described) else sizes.of(image)
        if isinstance(size, Rejected):
            return Rejected(conversation.id, size.reason, size.detail)
        layouts.append(reader.looker.layout(*size))
    try:
        whole = reader.conversations.encode(conversation.turns, layouts)
    except NunbitError as error:
        return Rejected(conversation.id, "no conversation", error.message)
    if any(not "".join(map(str, turn.parts)).strip() for turn in conversation.turns if turn.role == "assistant"):
        return Rejected(conversation.id, "empty answer", "the assistant says nothing")
    encoded = cut(whole, max_tokens)
    if encoded.asked == 0:
        detail = f"{len(whole.input_ids)} tokens, of which {max_tokens} are read, and none is of an answer"
        return Rejected(conversation.id, "loss would be zero", detail)
    return len(encoded.input_ids), encoded.asked


def _twice(conversations: Iterable[Conversation]) -> Iterator[Rejected]:
    """The same words about the same pictures: counted, and no harm."""
    seen: dict[tuple[object, ...], str] = {}
    for one in conversations:
        key = (one.turns, tuple(picture_key(image) for image in one.images))
        if key in seen:
            yield Rejected(one.id, "said twice", f"the same as {seen[key]}")
        else:
            seen[key] = one.id
