"""What the teacher says of every view of every picture, computed once and kept; and the batches made of it.

Shapes: N pictures of a batch, S side in pixels, E width of the teacher's space.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nunbit.augmentation import Changes, draw_changes
from nunbit.console import progress_bar
from nunbit.cores import usable_cores
from nunbit.distill.config import PictureConfig
from nunbit.distill.views import StudentPictures, decode, draw_view
from nunbit.encode import Encoded, Encoder, encode_stream
from nunbit.errors import ImageError, TrainingError, UsageError
from nunbit.picture_files import find_images
from nunbit.training.feature_store import FeatureStore
from nunbit.types import Rejected

if TYPE_CHECKING:
    from PIL import Image

    from nunbit.distill.views import Pixels
    from nunbit.types import FloatArray

SetAside = Callable[[Rejected], None]

_GROUP = 16  # pictures whose rows are kept at a time
_AHEAD = 3  # batches whose pictures are being decoded


@dataclass(frozen=True, slots=True)
class Batch:
    """One step.

    Attributes:
        images: (N, S, S, 3) uint8.
        rows: (N, E) float32, the teacher's.
        changes: What happens to the pictures.
    """

    images: Tensor
    rows: Tensor
    changes: Changes


def list_pictures(paths: Sequence[str], set_aside: SetAside) -> list[Path]:
    """The pictures in the order of `nunbit.picture_files.find_images`.

    Raises:
        UsageError: There is none.
    """
    found = []
    for item in find_images(paths):
        if isinstance(item, Rejected):
            set_aside(item)
        else:
            found.append(item)
    if not found:
        raise UsageError(f"no picture found in {', '.join(paths)}", hint="give folders with pictures")
    return found


def signature(files: Sequence[Path]) -> str:
    """sha256 (hex) over paths, sizes and times: whether the pictures are those that a run began with."""
    digest = hashlib.sha256()
    for path in files:
        status = path.stat()
        digest.update(f"{path}\t{status.st_size}\t{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


class Lessons:
    """The teacher's rows of all views.

    Args:
        files: All pictures.
        config: Which views, and how many are held out.
        folder: Where rows are kept.
        seed: Of the run.
        embedding_size: E.
    """

    def __init__(
        self, files: list[Path], config: PictureConfig, folder: Path, *, seed: int, embedding_size: int
    ) -> None:
        self.files = files
        self._config, self._seed = config, seed
        self._store = FeatureStore(folder, "teacher", embedding_size)

    def ask(self, teacher: Encoder, set_aside: SetAside) -> None:
        """Have the teacher look at what it has not seen; pictures that cannot be used are set aside.

        Raises:
            TrainingError: Too few pictures can be used to teach and to measure.
        """

        def compute(numbers: list[int]) -> tuple[list[str], FloatArray]:
            keys: list[str] = []
            seen = encode_stream(teacher, self._views(numbers, teacher, keys, set_aside))
            rows = [item.embedding for item in seen if isinstance(item, Encoded)]
            if len(rows) != len(keys):
                raise TrainingError("a view of a picture that was decoded cannot be encoded")
            return keys, np.stack(rows) if rows else np.empty((0, teacher.embedding_size), np.float32)

        with progress_bar("the teacher looks") as show:
            for done in self._store.fill(range(len(self.files)), compute, group=_GROUP):
                show(done, len(self.files))
        teaching, held = len(self.numbers(held_out=False)), len(self.numbers(held_out=True))
        if teaching < 2 or held < 1:
            raise TrainingError(
                f"{teaching} pictures teach and {held} are held out, of {len(self.files)}: that is too few",
                hint="give more pictures; the run's ledger names those that cannot be used",
            )

    def numbers(self, *, held_out: bool) -> list[int]:
        """Which pictures teach, or which are held out."""
        usable = (number for number in range(len(self.files)) if _key(number, 0) in self._store)
        return [number for number in usable if (number % self._config.held_out == 0) == held_out]

    def rows(self, numbers: Sequence[int], views: Sequence[int]) -> Tensor:
        """The teacher's rows (N, E) of pictures, each in a view."""
        return torch.from_numpy(self._store.rows(map(_key, numbers, views)))

    def whole(self, numbers: Sequence[int]) -> Tensor:
        """The teacher's rows (N, E) of whole pictures."""
        return self.rows(numbers, [0] * len(numbers))

    def batches(self, start: int, pictures: StudentPictures) -> Generator[Batch]:
        """The steps from ``start`` on, without end; they depend on the seed and their number alone."""
        config = self._config
        stream = self._stream(start * config.batch_size)
        waiting: deque[tuple[int, list[tuple[int, int]], list[Future[Pixels]]]] = deque()
        with ThreadPoolExecutor(usable_cores(), thread_name_prefix="nunbit-decode") as pool:
            for step in count(start):
                taken = [next(stream) for _ in range(config.batch_size)]
                waiting.append((step, taken, [pool.submit(pictures.get, *one) for one in taken]))
                if len(waiting) < _AHEAD:
                    continue
                now, chosen, futures = waiting.popleft()
                images = torch.from_numpy(np.stack([future.result() for future in futures]))
                rows = self.rows(*zip(*chosen, strict=True))
                changes = draw_changes(config.augmentation, config.batch_size, seed=self._seed, step=now)
                yield Batch(images, rows, changes)

    def _stream(self, start: int) -> Iterator[tuple[int, int]]:
        """Pictures in views: an epoch shows each once, the next ones in other views."""
        numbers = np.array(self.numbers(held_out=False))
        first, skip = divmod(start, len(numbers))
        offsets = np.random.default_rng([self._seed]).integers(self._config.views, size=len(numbers))
        for epoch in count(first):
            order = np.random.default_rng([self._seed, epoch]).permutation(len(numbers))
            for place in order[skip:]:
                yield int(numbers[place]), int((offsets[place] + epoch) % self._config.views)
            skip = 0

    def _views(
        self, numbers: Sequence[int], teacher: Encoder, keys: list[str], set_aside: SetAside
    ) -> Iterator[Image.Image]:
        """All views of some pictures, one after another; their keys are noted when they are given."""
        for number in numbers:
            path = self.files[number]
            try:
                whole = decode(path, teacher.preprocessing, self._config)
            except ImageError as error:
                set_aside(Rejected(str(path), error.reason, error.message))
                continue
            for view in range(self._config.views):
                keys.append(_key(number, view))
                yield draw_view(self._config, seed=self._seed, picture=number, view=view).of(whole)


def _key(number: int, view: int) -> str:
    return f"{number}/{view}"
