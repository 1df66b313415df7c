"""Records → what a step needs: decoded pictures, cut texts, and who belongs together.

Batch t is records t * B to (t + 1) * B of the stream, whoever asks and whenever; a process takes its share of them. The
text of a record is drawn by its position. So nothing has to be remembered to go on at step t.

Shapes: B pictures of a step, n of them for this process, k texts a picture, S side in pixels, T tokens, F width of a
locked tower's output.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias
from unicodedata import normalize

import numpy as np
import torch
from torch import Tensor

from nunbit.augmentation import Changes, draw_changes
from nunbit.contrastive.config import DataConfig
from nunbit.contrastive.students import Student
from nunbit.cores import usable_cores
from nunbit.data import Mixture
from nunbit.errors import ConfigError, ImageError, TrainingError, UsageError
from nunbit.images import open_image
from nunbit.losses import Identities
from nunbit.preprocessing import Preprocessing
from nunbit.training.distributed import World
from nunbit.training.feature_store import FeatureStore
from nunbit.types import ImageText, Rejected

if TYPE_CHECKING:
    import numpy.typing as npt

    Pixels: TypeAlias = npt.NDArray[np.uint8]

_AHEAD = 3  # batches whose pictures are being decoded


@dataclass(frozen=True, slots=True)
class Batch:
    """This process's share of one step.

    Attributes:
        images: (n, S, S, 3) uint8, or (n, F) float32 of a locked tower.
        texts: (n * k, T) int64 token ids, or (n * k, F) float32 of a locked tower; those of a picture are neighbors.
        identities: Which pictures and texts of the n * k pairs are the same.
        changes: What happens to the pictures; None for those of a locked tower.
    """

    images: Tensor
    texts: Tensor
    identities: Identities
    changes: Changes | None

    def chunks(self, size: int | None) -> list[Batch]:
        """The batch in parts of at most ``size`` pictures."""
        count = len(self.images)
        if size is None or size >= count:
            return [self]
        return [self._part(slice(start, start + size)) for start in range(0, count, size)]

    @property
    def texts_per_picture(self) -> int:
        """How many neighbors of ``texts`` belong to one picture."""
        return len(self.texts) // len(self.images)

    def _part(self, numbers: slice) -> Batch:
        pairs = slice(numbers.start * self.texts_per_picture, numbers.stop * self.texts_per_picture)
        identities = Identities(self.identities.pictures[pairs], self.identities.texts[pairs])
        changes = None if self.changes is None else self.changes.part(numbers)
        return Batch(self.images[numbers], self.texts[pairs], identities, changes)


@dataclass(frozen=True, slots=True)
class Stores:
    """What locked towers say; None where a tower is not locked."""

    image: FeatureStore | None = None
    text: FeatureStore | None = None


class Pictures:
    """Decoded pictures, kept as long as there is room.

    Args:
        preprocessing: Of the model.
        room: Bytes.
    """

    def __init__(self, preprocessing: Preprocessing, room: int) -> None:
        self._preprocessing = preprocessing
        self._room = room
        self._kept: dict[str, Pixels] = {}

    def get(self, record: ImageText) -> Pixels | Rejected:
        """The square of a record's picture, (S, S, 3); or why it cannot be used."""
        kept = self._kept.get(record.key)
        if kept is not None:
            return kept
        try:
            image, info = open_image(record.image, needed=self._preprocessing.resized)
            pixels: Pixels = np.asarray(self._preprocessing.square(image, info))
        except ImageError as error:
            path = record.image if isinstance(record.image, str) else record.key
            return Rejected(path, error.reason, error.message)
        if self._room >= pixels.nbytes:  # threads may overdraw by a picture each
            self._room -= pixels.nbytes
            self._kept[record.key] = pixels
        return pixels


class BatchMaker:
    """Makes the batches of a run.

    Args:
        student: What is trained.
        mixture: What teaches.
        config: Sizes and changes.
        seed: Of the run.
        world: This process among others.

    Attributes:
        stores: What locked towers say; set before the first batch.
        set_aside: Told of each picture that cannot be used.
    """

    def __init__(self, student: Student, mixture: Mixture, config: DataConfig, *, seed: int, world: World) -> None:
        if config.batch_size % world.size:
            raise UsageError(
                f"data.batch_size is {config.batch_size}, which {world.size} processes cannot share",
                hint=f"take a multiple of {world.size}",
            )
        self._student, self._mixture, self._config = student, mixture, config
        self._seed = seed
        self._count = config.batch_size // world.size
        self._first = world.rank * self._count
        self.pictures = Pictures(student.preprocessing, config.cache_mb << 20)
        self.stores = Stores()
        self._knows_positives = False
        self.set_aside: Callable[[Rejected], None] = lambda _: None

    def batches(self, start: int) -> Generator[Batch]:
        """This process's shares of the steps from ``start`` on, without end."""
        size = self._config.batch_size
        stream = self._mixture.stream(
            start * size, wanted=lambda position: 0 <= position % size - self._first < self._count
        )
        waiting: deque[tuple[int, list[int], list[ImageText], list[Future[Pixels | Rejected]]]] = deque()
        step = start
        with ThreadPoolExecutor(usable_cores(), thread_name_prefix="nunbit-decode") as pool:
            while True:
                while len(waiting) < _AHEAD:
                    taken = [next(stream) for _ in range(self._count)]
                    records = [record for _, record in taken]
                    futures = [] if self.stores.image else [pool.submit(self.pictures.get, r) for r in records]
                    waiting.append((step, [position for position, _ in taken], records, futures))
                    step += 1
                yield self._make(*waiting.popleft())

    def _make(
        self, step: int, positions: list[int], records: list[ImageText], futures: list[Future[Pixels | Rejected]]
    ) -> Batch:
        if self.stores.image is not None:
            store = self.stores.image
            chosen = self._usable([record.key in store for record in records])
            images = torch.from_numpy(store.rows(records[number].key for number in chosen))
        else:
            found = [future.result() for future in futures]
            for item in found:
                if isinstance(item, Rejected):
                    self.set_aside(item)
            good = {number: item for number, item in enumerate(found) if not isinstance(item, Rejected)}
            chosen = self._usable([number in good for number in range(len(found))])
            images = torch.from_numpy(np.stack([good[number] for number in chosen]))
        each = self._config.texts_per_picture
        taken = [records[number] for number in chosen for _ in range(each)]
        texts = [text for number in chosen for text in draw_texts(records[number], each, self._seed, positions[number])]
        return Batch(images, self._text_inputs(texts), self._identities(taken, texts), self._changes(step))

    def _usable(self, good: Sequence[bool]) -> list[int]:
        """For each place of the batch the number of its record, or of the next one that can be used.

        A batch keeps its size, since several processes must agree on it; a pair that is there twice is its own
        positive, not its negative.
        """
        if not any(good):
            raise TrainingError(
                f"none of {len(good)} pictures of a batch can be read",
                hint="the ledger of the run names them with reasons; check the paths in the data",
            )
        following = list(range(len(good)))
        nearest = following[good.index(True)]
        for number in reversed(following):
            nearest = number if good[number] else nearest
            following[number] = nearest
        return following

    def _text_inputs(self, texts: Sequence[str]) -> Tensor:
        if self.stores.text is not None:
            return torch.from_numpy(self.stores.text.rows(texts))
        return self._student.token_ids(texts)

    def _identities(self, records: Sequence[ImageText], texts: Sequence[str]) -> Identities:
        column = self._config.positives
        if column and not self._knows_positives:
            self._knows_positives = any(record.metadata.get(column) is not None for record in records)
            if not self._knows_positives:
                message = f"data.positives is {column!r}, which no record of a whole batch has"
                raise ConfigError(message, hint=f"the first has: {', '.join(records[0].metadata) or 'nothing else'}")
        pictures = [number_of(identity(record, self._config.positives)) for record in records]
        words = [number_of(" ".join(normalize("NFC", text).casefold().split())) for text in texts]
        return Identities(torch.tensor(pictures), torch.tensor(words))

    def _changes(self, step: int) -> Changes | None:
        if self.stores.image is not None:
            return None
        changes = draw_changes(self._config.augmentation, self._config.batch_size, seed=self._seed, step=step)
        return changes.part(slice(self._first, self._first + self._count))


def draw_texts(record: ImageText, count: int, seed: int, position: int) -> list[str]:
    """So many of a record's texts, the same whenever that position is read; one comes twice where there are too few."""
    known = record.texts
    if len(known) == 1:
        return [known[0]] * count
    order = np.random.default_rng([seed, 1, position]).permutation(len(known))
    return [known[order[number % len(known)]] for number in range(count)]


def identity(record: ImageText, column: str) -> str | bytes:
    """What is the same for records that show the same: a metadata column's value, or the picture itself."""
    if column and record.metadata.get(column) is not None:
        return f"{column}\0{record.metadata[column]}"
    return record.image if isinstance(record.image, bytes) else os.path.normpath(record.image)


def number_of(thing: str | bytes) -> int:
    """The same number for the same thing on every machine, and for others another one, all but surely."""
    content = thing if isinstance(thing, bytes) else thing.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big", signed=True)
