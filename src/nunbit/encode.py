"""Pictures and texts → unit-length float32 rows: batched, decoded in threads, order kept.

A model supplies two functions (pixels → rows, texts → rows); this module owns everything around them, so that every
model reads pictures the same way. Torch is never imported here.

Shapes: B batch, N items, D width, H W pixels.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, runtime_checkable

import numpy as np

from nunbit.cores import usable_cores
from nunbit.errors import ImageError, UsageError
from nunbit.golden import record_golden
from nunbit.images import ImageInfo, open_image
from nunbit.preprocessing import AnyPreprocessing
from nunbit.types import Rejected

if TYPE_CHECKING:
    from nunbit.types import FloatArray, ImageSource

T = TypeVar("T")

DEFAULT_BATCH_SIZE = 4
"""Small on purpose: on a CPU the activations of a small batch stay in the cache, and memory stays flat."""


class DualEncoder(Protocol):
    """What a model offers; both encoding methods return unit-length float32 rows of one shared space."""

    @property
    def model(self) -> Any:
        """What computes: the torch module of a CLIP or SigLIP model."""

    @property
    def tokenizer(self) -> Any:
        """Texts → token ids; None where the model takes texts as they are."""

    @property
    def fingerprint(self) -> str:
        """As in `Encoder.fingerprint`."""

    @property
    def logit_scale(self) -> float:
        """As in `Encoder.logit_scale`."""

    @property
    def logit_bias(self) -> float | None:
        """As in `Encoder.logit_bias`."""

    def encode_pixels(self, pixel_values: FloatArray | Sequence[FloatArray]) -> FloatArray:
        """(B, 3, H, W) float32, normalized, or B arrays (3, H_i, W_i) → (B, D)."""

    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        """N texts → (N, D)."""

    def programs(self) -> dict[str, Any]:
        """The towers that other engines may compute: `nunbit.programs.Program` by ``image`` and ``text``."""

    def save(self, folder: Path) -> None:
        """Write the model so that it can be loaded again."""


@runtime_checkable
class PatchEncoder(Protocol):
    """What a model may offer beside: features of the parts of a picture. Whose towers are compiled has none."""

    @property
    def patch_size(self) -> int:
        """Side p of the square of pixels that a feature stands for."""

    def patch_features(self, pixel_values: FloatArray, *, layers: Sequence[int] | None = None) -> FloatArray:
        """(B, 3, H, W) float32, normalized → (B, H / p, W / p, D) float32, as `Encoder.patch_features`."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What computes, and how it likes its work.

    Attributes:
        name: As people read it: ``torch``, ``openvino (pictures int8, texts bf16)``.
        batch_size: Pictures a forward pass that it is quick at.
        concurrency: How many forward passes gain from running side by side, in threads.
    """

    name: str = "torch"
    batch_size: int = DEFAULT_BATCH_SIZE
    concurrency: int = 1


@dataclass(frozen=True, slots=True)
class EncoderInfo:
    """What is known about an encoder without running it.

    Attributes:
        name: The name, folder or hub id that it was loaded by.
        embedding_size: D.
        preprocessing: How a picture becomes pixels.
        engine: What computes.
    """

    name: str
    embedding_size: int
    preprocessing: AnyPreprocessing
    engine: EngineInfo = EngineInfo()


@dataclass(frozen=True, slots=True)
class Encoded:
    """One picture that was encoded: its source, its unit row (D,) and what its header said."""

    source: ImageSource
    embedding: FloatArray
    info: ImageInfo


class Encoder:
    """A loaded dual encoder.

    Args:
        towers: What encodes.
        info: Name, fingerprint, sizes, preprocessing.

    Example:
        >>> encoder = nunbit.load("starter")
        >>> encoder.encode_text(["a cat", "고양이"]).shape
        (2, 512)
    """

    def __init__(self, towers: DualEncoder, info: EncoderInfo) -> None:
        self.towers = towers
        self.name = info.name
        self.embedding_size = info.embedding_size
        self.preprocessing = info.preprocessing
        self.engine = info.engine

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) over everything that changes an answer, as the model is now: weights, preprocessing, ..."""
        return self.towers.fingerprint

    @property
    def logit_scale(self) -> float:
        """Factor on similarities before they become probabilities."""
        return self.towers.logit_scale

    @property
    def logit_bias(self) -> float | None:
        """Added before a sigmoid that judges each label by itself (SigLIP); None where labels compete (CLIP)."""
        return self.towers.logit_bias

    def encode_image(
        self,
        images: Sequence[ImageSource],
        *,
        batch_size: int | None = None,
        threads: int | None = None,
        exact: bool = False,
    ) -> FloatArray:
        """Embed pictures.

        Args:
            images: N paths, bytes of image files, PIL pictures, or arrays (H, W[, 3 or 4]) of uint8 or of float in
                [0, 1].
            batch_size: Pictures a forward pass, by default what the engine is quick at; it changes no answer beyond
                1e-5.
            threads: Decoding threads; by default the number of cores.
            exact: Decode large JPEGs in full. By default they are decoded to a size that is still three times what the
                model looks at, which is several times quicker and differs by rounding: see `encode_stream`.

        Returns:
            (N, D) float32, unit rows, in the order given.

        Raises:
            ImageError: A picture cannot be read; the first bad one is named.
        """
        rows = np.empty((len(images), self.embedding_size), np.float32)
        stream = encode_stream(self, images, batch_size=batch_size, threads=threads, exact=exact)
        for number, item in enumerate(stream):
            if isinstance(item, Rejected):
                raise ImageError(item.reason, item.detail)
            rows[number] = item.embedding
        return rows

    def encode_text(self, texts: Sequence[str]) -> FloatArray:
        """Embed texts.

        Args:
            texts: N texts. Text of nothing but white space has no meaning to embed and is refused.

        Returns:
            (N, D) float32, unit rows.

        Raises:
            UsageError: One string instead of a list, or an empty text.
        """
        if isinstance(texts, str):
            raise UsageError("encode_text takes a list of texts, got one string", hint=f"write [{texts!r}]")
        odd = next((text for text in texts if not isinstance(text, str)), None)
        if odd is not None:
            raise UsageError(f"encode_text takes texts, got {type(odd).__name__}")
        if any(not text.strip() for text in texts):
            raise UsageError("a text is empty", hint="give every text at least one word")
        if len(texts) == 0:
            return np.empty((0, self.embedding_size), np.float32)
        return self.towers.encode_texts(texts)

    def encode_pixels(self, pixel_values: FloatArray | Sequence[FloatArray]) -> FloatArray:
        """(B, 3, H, W) float32 as ``preprocessing`` makes it, or B arrays of several sizes → (B, D) unit rows."""
        return self.towers.encode_pixels(pixel_values)

    def patch_features(self, pixel_values: FloatArray, *, layers: Sequence[int] | None = None) -> FloatArray:
        """Look at parts of pictures: what is where, not what all of it is.

        Args:
            pixel_values: (B, 3, H, W) float32, normalized as ``preprocessing`` does, H and W multiples of p.
            layers: Behind which blocks, side by side; by default those that the encoder recommends.

        Returns:
            (B, H / p, W / p, D) float32, not of unit length.

        Raises:
            UsageError: This encoder has none: it is compiled, or takes pictures of any proportions; or no such block.
        """
        return self._patches.patch_features(pixel_values, layers=layers)

    @property
    def patch_size(self) -> int:
        """Side p of the square of pixels that a patch feature stands for.

        Raises:
            UsageError: This encoder has no patch features.
        """
        return self._patches.patch_size

    @property
    def _patches(self) -> PatchEncoder:
        if not isinstance(self.towers, PatchEncoder):
            raise UsageError(
                f"{self.name} gives embeddings alone, no patch features", hint="take the starter or a CLIP"
            )
        return self.towers

    @property
    def model(self) -> Any:
        """What computes. For CLIP and SigLIP the torch module, a `nunbit.clip.Clip`."""
        return self.towers.model

    @property
    def tokenizer(self) -> Any:
        """Texts → token ids, a `nunbit.text.Tokenizer`; None where the model takes texts as they are."""
        return self.towers.tokenizer

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write a model folder that `nunbit.load` opens with the same fingerprint.

        Golden outputs are written beside the weights, for ``nunbit models verify``. CLIP and SigLIP folders are opened
        by `transformers` and open_clip as well, where those know the architecture.

        Args:
            folder: Made when it is not there; files in it are replaced.
        """
        self.towers.save(Path(folder))
        record_golden(self, Path(folder))


def encode_stream(
    encoder: Encoder,
    sources: Iterable[ImageSource],
    *,
    batch_size: int | None = None,
    threads: int | None = None,
    exact: bool = False,
) -> Generator[Encoded | Rejected, None, None]:
    """Encode an endless stream of pictures in bounded memory, in order; a bad one becomes a ``Rejected``.

    Threads decode, and where the engine gains from forward passes side by side others encode, ahead of who reads the
    stream: as many batches as are encoded at a time, two more, and enough to keep the decoding threads busy. Close the
    stream to stop them early.

    Large JPEGs are decoded to a part of their size. On photographs of 12 megapixels this changes the pixels that the
    model looks at by at most 3 of 255, but for less than one in a thousand that lies in strong colors (6 was the most).
    A picture that is sharp to its last pixel, as small ones on the web are, may differ by more at its edges.

    Args:
        encoder: Any encoder.
        sources: Pictures as ``Encoder.encode_image`` takes them; read lazily, in the thread that reads the stream.
        batch_size: Pictures a forward pass, at least 1; by default what the encoder's engine is quick at.
        threads: Decoding threads, by default the number of cores.
        exact: Decode every picture in full.

    Yields:
        For every source, in order, its embedding or why it has none.
    """
    size = encoder.engine.batch_size if batch_size is None else batch_size
    if size < 1:
        raise UsageError(f"batch_size is {size}, it must be at least 1")
    workers = threads or usable_cores()
    ahead = encoder.engine.concurrency + 2 + math.ceil(workers / size)
    decode = partial(_decode, preprocessing=encoder.preprocessing, exact=exact)
    waiting: deque[Callable[[], list[Encoded | Rejected]]] = deque()  # each gives a batch, in order
    rest = iter(sources)
    with _Pools(workers, encoder.engine.concurrency) as pools:
        while True:
            while len(waiting) < ahead and (some := list(islice(rest, size))):
                decoded = [pools.decoding.submit(decode, source) for source in some]
                waiting.append(pools.encode(partial(_encode_batch, encoder, decoded)))
            if not waiting:
                return
            yield from waiting.popleft()()


class _Pools:
    """The threads of one stream.

    One forward pass at a time is left to the thread that reads the stream: a thread of its own gains nothing on a
    processor, and costs torch some milliseconds to warm up.
    """

    def __init__(self, workers: int, concurrency: int) -> None:
        self.decoding = ThreadPoolExecutor(workers, thread_name_prefix="nunbit-decode")
        self._encoding = ThreadPoolExecutor(concurrency, thread_name_prefix="nunbit-encode")
        self._beside = concurrency > 1

    def encode(self, work: Callable[[], T]) -> Callable[[], T]:
        """Give what waits for the result of ``work``, or does it."""
        return self._encoding.submit(work).result if self._beside else work

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Stop: who stops early must not wait for pictures that nobody will look at."""
        self._encoding.shutdown(wait=False, cancel_futures=True)
        self.decoding.shutdown(cancel_futures=True)  # a batch that waits for a picture learns that it is canceled
        self._encoding.shutdown()


@dataclass(frozen=True, slots=True)
class _Decoded:
    source: ImageSource
    pixel_values: FloatArray
    info: ImageInfo


def _decode(source: ImageSource, preprocessing: AnyPreprocessing, exact: bool) -> _Decoded | Rejected:
    try:
        image, info = open_image(source, needed=None if exact else preprocessing.resized)
        return _Decoded(source, preprocessing(image, info), info)
    except ImageError as error:
        name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else ""
        return Rejected(name, error.reason, error.message)


def _encode_batch(encoder: Encoder, decoding: list[Future[_Decoded | Rejected]]) -> list[Encoded | Rejected]:
    batch = [future.result() for future in decoding]
    good = [item for item in batch if isinstance(item, _Decoded)]
    rows = iter(encoder.encode_pixels(_stack([item.pixel_values for item in good])) if good else ())
    return [item if isinstance(item, Rejected) else Encoded(item.source, next(rows), item.info) for item in batch]


def _stack(pictures: list[FloatArray]) -> FloatArray | list[FloatArray]:
    """One array where all pictures have one size, which only a flexible preprocessing may deny."""
    return np.stack(pictures) if len({picture.shape for picture in pictures}) == 1 else pictures
