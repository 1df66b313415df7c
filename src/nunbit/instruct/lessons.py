"""Conversations → what a model reads at each step, the same in every run.

Samples about the same pictures stay together in bundles, which share their pictures in a packed row. An epoch is a
shuffle of all bundles; a step takes the next ``batch_size`` samples, wherever an epoch ends.

Shapes: N samples, P patches, D width of the patch features.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nunbit.errors import NunbitError, TrainingError
from nunbit.instruct.formats import Conversation, picture_key
from nunbit.language_model.model import IGNORED
from nunbit.types import Rejected
from nunbit.vlm.batching import Sample, SampleReader, collate, last_answer, pack
from nunbit.vlm.conversation import Encoded
from nunbit.vlm.model import IMAGE_TOKEN_ID, VlmInputs

if TYPE_CHECKING:
    from torch import Tensor

    from nunbit.instruct.config import InstructDataConfig
    from nunbit.instruct.pictures import Pictures
    from nunbit.training.distributed import World

_MOST_IN_A_BUNDLE = 16
_WINDOW = 32  # steps among which samples of one length are put together, where they are padded


@dataclass(frozen=True, slots=True)
class Lesson:
    """One step.

    Attributes:
        parts: What this process reads, a forward pass each.
        asked: Tokens that are learned, by all processes together.
        samples: Of all processes together.
    """

    parts: tuple[VlmInputs, ...]
    asked: int
    samples: int


class Lessons:
    """All samples of some files, checked and written down.

    Args:
        conversations: What there is.
        reader: Writes them down.
        pictures: Opens their pictures, or has what the eye says of them.
        config: Sizes.
        set_aside: Told of what cannot be used.
    """

    def __init__(
        self,
        conversations: Sequence[Conversation],
        reader: SampleReader,
        pictures: Pictures,
        config: InstructDataConfig,
        set_aside: Callable[[Rejected], None],
    ) -> None:
        self._reader, self._pictures, self._config = reader, pictures, config
        self._set_aside = set_aside
        self._packs = config.pack and not pictures.encoder_decoder  # an encoder has no causal order to keep apart
        self._conversations: list[Conversation] = []
        self._encoded: list[Encoded] = []
        for conversation in conversations:
            encoded = self._encode(conversation)
            if encoded is not None:
                self._conversations.append(conversation)
                self._encoded.append(encoded)
        if not self._encoded:
            raise TrainingError("no sample can be used", hint="nunbit vlm check FILE says what is wrong with each")
        self._keys = [tuple(map(picture_key, conversation.images)) for conversation in self._conversations]
        self._groups = self._about_the_same(range(len(self)))

    def __len__(self) -> int:
        return len(self._encoded)

    def lessons(self, start: int, *, seed: int, world: World) -> Iterator[Lesson]:
        """One lesson a step, from step ``start`` on, without end."""
        size, order, epoch = self._config.batch_size, list[int](), -1
        step = start
        while True:
            chosen = []
            for place in range(step * size, (step + 1) * size):
                if place // len(self) != epoch:
                    epoch = place // len(self)
                    order = self._order(np.random.default_rng((seed, epoch)))
                chosen.append(order[place % len(self)])
            yield self._lesson(chosen, world)
            step += 1

    def all_at_once(self, limit: int) -> Iterator[VlmInputs]:
        """The first so many samples, once, for measuring."""
        yield from self._rows(list(range(min(limit, len(self)))), 0, 1)

    def _encode(self, conversation: Conversation) -> Encoded | None:
        """Ids and labels; None, and told of, where it cannot be used."""
        try:
            layouts = [self._pictures.layout(image) for image in conversation.images]
            encoded = cut(self._reader.conversations.encode(conversation.turns, layouts), self._config.max_tokens)
        except NunbitError as error:
            self._set_aside(Rejected(conversation.id, "cannot be used", error.message))
            return None
        if self._asked(encoded) == 0:
            detail = f"nothing is asked within {self._config.max_tokens} tokens"
            self._set_aside(Rejected(conversation.id, "no answer", detail))
            return None
        return encoded

    def _asked(self, encoded: Encoded) -> int:
        """Tokens that are learned: of an encoder-decoder those of the last answer alone."""
        return len(last_answer(encoded)) if self._pictures.encoder_decoder else encoded.asked

    def _order(self, rng: np.random.Generator) -> list[int]:
        """All samples, bundle by bundle; where rows are padded, those of one length near each other."""
        bundles = []
        for group in self._groups:
            shuffled = rng.permutation(group).tolist()
            bundles += [shuffled[at : at + _MOST_IN_A_BUNDLE] for at in range(0, len(shuffled), _MOST_IN_A_BUNDLE)]
        order = [number for place in rng.permutation(len(bundles)) for number in bundles[place]]
        if self._packs:
            return order
        size = self._config.batch_size
        batches = []
        for at in range(0, len(order), _WINDOW * size):
            window = sorted(order[at : at + _WINDOW * size], key=self._length)
            batches += [window[first : first + size] for first in range(0, len(window), size)]
        return [number for place in rng.permutation(len(batches)) for number in batches[place]]

    def _length(self, number: int) -> int:
        return len(self._encoded[number].input_ids)

    def _lesson(self, chosen: Sequence[int], world: World) -> Lesson:
        asked = sum(self._asked(self._encoded[number]) for number in chosen)
        return Lesson(tuple(self._rows(chosen, world.rank, world.size)), asked, len(chosen))

    def _rows(self, chosen: Sequence[int], rank: int, ranks: int) -> Iterator[VlmInputs]:
        """What a process reads of some samples: every so many-th bundle, in rows of about ``micro_tokens``."""
        row: list[list[int]] = []
        filled = 0
        for bundle in self._bundles(chosen)[rank::ranks]:
            length = sum(map(self._length, bundle)) if not self._packs else self._packed_length(bundle)
            if row and filled + length > self._config.micro_tokens:
                yield self._read(row)
                row, filled = [], 0
            row.append(bundle)
            filled += length
        if row:
            yield self._read(row)

    def _bundles(self, chosen: Sequence[int]) -> list[list[int]]:
        """Samples about the same pictures, together; all of them apart where rows are padded."""
        if not self._packs:
            return [[number] for number in sorted(chosen, key=self._length)]
        return self._about_the_same(chosen)

    def _about_the_same(self, numbers: Iterable[int]) -> list[list[int]]:
        """Samples by their pictures; one without any stands alone."""
        found: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for number in numbers:
            found[self._keys[number] or (str(number),)].append(number)
        return list(found.values())

    def _packed_length(self, bundle: Sequence[int]) -> int:
        """Tokens of a bundle in a row, pictures counted once."""
        places = self._encoded[bundle[0]].input_ids.count(IMAGE_TOKEN_ID)
        return places + sum(self._length(number) - places for number in bundle)

    def _read(self, row: Sequence[Sequence[int]]) -> VlmInputs:
        read: dict[tuple[str, ...], Tensor | None] = {}
        bundles = [[self._sample(number, read) for number in bundle] for bundle in row]
        if self._packs:
            return pack(bundles)
        samples = [sample for bundle in bundles for sample in bundle]
        return collate(samples, encoder_decoder=self._pictures.encoder_decoder)

    def _sample(self, number: int, read: dict[tuple[str, ...], Tensor | None]) -> Sample:
        conversation, key = self._conversations[number], self._keys[number]
        if key not in read:
            read[key] = self._pictures.see(conversation.images)
        seen, cached = read[key], self._pictures.cached
        return Sample(
            self._encoded[number],
            pixel_values=None if cached else seen,
            image_features=seen if cached else None,
            instruction=self._reader.instruction(conversation.turns),
        )


def cut(encoded: Encoded, most: int) -> Encoded:
    """Drop what is beyond so many tokens: of answers and words, never a part of a picture.

    Where the cut would go through a picture's tokens or drop one, nothing is left to learn from.
    """
    if len(encoded.input_ids) <= most:
        return encoded
    if IMAGE_TOKEN_ID in encoded.input_ids[most:]:
        return Encoded(encoded.input_ids, [IGNORED] * len(encoded.labels))
    return Encoded(encoded.input_ids[:most], encoded.labels[:most])
