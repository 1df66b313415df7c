"""What the routes call: encoder, collection, labels and thumbnails of one running server.

Shapes: N pictures, C labels, D width.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from nunbit.caches import cache_folder
from nunbit.errors import StoreBusy
from nunbit.images import open_image
from nunbit.index import Index
from nunbit.recognition import Labels
from nunbit.serve.batching import Batcher, Pixels
from nunbit.serve.chat import ChatQueue
from nunbit.serve.collection import Collection
from nunbit.serve.gate import Traffic
from nunbit.serve.indexing import FolderIndexing
from nunbit.serve.label_sets import LabelSets
from nunbit.serve.metrics import Metrics
from nunbit.serve.pictures import Region, decode, picture_bytes, read_picture_file
from nunbit.serve.problems import Problem
from nunbit.serve.remote import FETCHES, Fetcher, is_url
from nunbit.serve.thumbnails import Thumbnails
from nunbit.serve.writer import Writer, no_item
from nunbit.text.templates import get_templates
from nunbit.types import Recognition

if TYPE_CHECKING:
    from nunbit.chat import Talker
    from nunbit.encode import Encoder
    from nunbit.head import Head
    from nunbit.images import ImageInfo
    from nunbit.index import Item
    from nunbit.serve.settings import Settings
    from nunbit.types import FloatArray

_log = logging.getLogger("nunbit")
T = TypeVar("T")
_LABELS_KEPT = 64
_LABEL_TEXTS = 8192  # labels times templates, encoded in one go
_LOOK_SECONDS = 2.0
_BYTES_PER_PIXEL = 8
_PROBE = "a photo"
_SAME = 0.999
_CHECK_SECONDS = 1.0


class Service:
    """One server's insides. `start` and `stop` run within its event loop.

    Args:
        settings: As given.
        encoder: The index's.
        talker: Answers questions, where that is wanted.
    """

    def __init__(self, settings: Settings, encoder: Encoder, talker: Talker | None = None) -> None:
        self.settings = settings
        self.encoder = encoder
        self.traffic = Traffic()
        self.metrics = Metrics()
        self.collection = Collection(encoder.embedding_size)
        self.index = Index.open(settings.index, encoder)
        self.label_sets = LabelSets(settings.index, encoder, settings.label_sets)
        self.indexing = FolderIndexing(self.index, settings.root)
        self.chat = None if talker is None else ChatQueue(talker, settings.limits)
        self.fetcher = Fetcher(settings.limits.body_bytes) if settings.fetch else None
        self.ready = False
        self.created = int(time.time())
        self._labels: OrderedDict[tuple[Any, ...], Labels] = OrderedDict()
        self._roots = () if settings.root is None else (settings.root.resolve(), self.index.uploads.folder.resolve())
        self._label_thread = ThreadPoolExecutor(1, thread_name_prefix="nunbit-labels")  # slow work delays no search
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="nunbit-serve")
        self._checked, self._check_took = float("-inf"), 0.0
        self._follower: asyncio.Task[None] | None = None

    @property
    def model_name(self) -> str:
        """The name of the encoder, without where it lies on this machine."""
        return os.path.basename(self.encoder.name.rstrip("/")) or self.encoder.name

    async def start(self) -> None:
        """Read the index and warm the encoder up."""
        limits = self.settings.limits
        # Requests are what runs side by side. Threads within a product of matrices would only wait for each other,
        # each of them keeping a core busy with it: that costs half of the answers a second.
        self._blas = threadpool_limits(1, user_api="blas")
        self._checking = asyncio.Lock()
        self._fetching = asyncio.Semaphore(FETCHES)
        self.batcher = Batcher(self.encoder, self.metrics, latency=self.settings.latency, waiting=limits.waiting)
        self.writer = Writer(self.index, self.collection)
        self.thumbnails = Thumbnails(cache_folder("thumbnails") / "thumbnails-1.sqlite", self.settings.thumbnail_bytes)
        self.index.watch(self.collection.apply)
        with suppress(StoreBusy):  # another program indexes: there is no hurry
            await self.in_thread(self.index.remove_orphans)
        await self.in_thread(self._read_all)
        self._probes = await self._embed_probes()
        self._follower = asyncio.create_task(self._follow())
        self.ready = True

    async def stop(self) -> None:
        """Finish what was accepted."""
        self.ready = False
        self.traffic.stopping = True
        if self._follower is not None:
            self._follower.cancel()
        await self.in_thread(self.indexing.cancel)
        if self.chat is not None:
            await self.chat.close()
        await self.batcher.close()
        await self.writer.close()
        self.thumbnails.close()
        self._label_thread.shutdown(wait=False, cancel_futures=True)
        self._threads.shutdown()
        if self.fetcher is not None:
            self.fetcher.close()
        self.index.close()
        self._blas.restore_original_limits()

    async def in_thread(self, call: Callable[..., T], *given: Any) -> T:
        """Run what computes or reads, beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(call, *given))

    @asynccontextmanager
    async def content_of(self, text: str, param: str) -> AsyncIterator[bytes]:
        """The file that a request gives as a data URL, as base64 or, where the server fetches, by a URL.

        What was fetched counts against no limit of the request, so only a few are held at a time: use it within.

        Raises:
            Problem: 400, it is none of these; as `Fetcher.get`.
        """
        if self.fetcher is None or not is_url(text):
            yield picture_bytes(text, param)
        else:
            async with self._fetching:
                yield await self.fetcher.get(text, param)

    async def embed_given(self, text: str, param: str, region: Region | None = None) -> FloatArray:
        """The embedding (D,) of a picture that `content_of` takes, or of a region of it."""
        async with self.content_of(text, param) as content:
            return await self.embed_file(content, region)

    async def embed_file(self, content: bytes, region: Region | None = None) -> FloatArray:
        """As `embed_picture`, the embedding (D,) alone."""
        return (await self.embed_picture(content, region))[0]

    async def embed_picture(self, content: bytes, region: Region | None = None) -> tuple[FloatArray, ImageInfo]:
        """The bytes of a picture → (D,) float32, unit; and what its header said.

        Raises:
            ImageError: It cannot be used.
        """
        pixels = self.settings.limits.pixels
        return await self.batcher.picture(
            lambda: decode(content, self.encoder.preprocessing, region, max_pixels=pixels)
        )

    async def embed_item(self, id_: str, region: Region | None = None) -> FloatArray:
        """An item's embedding, or that of a region of its picture.

        Raises:
            Problem: 404, no such item, or its file is gone.
        """
        if region is None:
            vector = self.collection.vector(id_)
            if vector is None:
                raise no_item(id_)
            return vector
        content = await self.in_thread(self.read_item, self.item(id_))
        return await self.embed_file(content, region)

    def item(self, id_: str) -> Item:
        """An item.

        Raises:
            Problem: 404.
        """
        found = self.collection.get(id_)
        if found is None:
            raise no_item(id_)
        return found

    def read_item(self, item: Item) -> bytes:
        """The bytes of an item's file.

        Raises:
            Problem: 404, it is gone or outside of what may be read.
        """
        return read_picture_file(item.path, self._roots, self.settings.limits.pixels * _BYTES_PER_PIXEL)

    async def thumbnail(self, item: Item, size: int) -> bytes:
        """A JPEG of an item."""
        key = f"{item.id}-{item.metadata['content_hash'] or item.metadata['mtime_ns']}"
        read = partial(self.read_item, item)
        most = self.settings.limits.pixels
        return await self.batcher.work(lambda: self.thumbnails.get(key, read, size, most))

    async def labels(self, names: Sequence[str], templates: str) -> Labels:
        """Labels, embedded; those used lately are kept in memory.

        Raises:
            UsageError: Labels or templates that cannot be meant.
            Problem: 413, labels times templates are too many texts.
        """
        key = (templates, *names)
        found = self._labels.get(key)
        if found is None:
            _check_texts(names, templates)
            make = partial(Labels, self.encoder, list(names), templates=templates)
            found = await asyncio.get_running_loop().run_in_executor(self._label_thread, make)
        self._labels[key] = found
        self._labels.move_to_end(key)
        while len(self._labels) > _LABELS_KEPT:
            self._labels.popitem(last=False)
        return found

    async def predictor(
        self, names: Sequence[str], label_set: str | None, templates: str | None
    ) -> Callable[[FloatArray, int], Recognition]:
        """What names a picture: an embedding (D,) and a number of labels → its best labels."""
        if large := self.label_sets.large(label_set):
            return lambda row, top_k: Recognition("", large.predict(row[None], top_k)[0])
        given = await self.judge(names, label_set, templates)
        return given.recognize

    async def judge(self, names: Sequence[str], label_set: str | None, templates: str | None) -> Labels | Head:
        """Labels given in a request, those of a kept set, or a head.

        Raises:
            Problem: 400, both or neither are given; 404, no such set; 400, a set of too many labels.
        """
        if (label_set is None) == (not names):
            message = "exactly one of labels and label_set is needed"
            raise Problem(400, "bad_request", message, 'write "labels": ["cat", "dog"]', "labels")
        if label_set is None:
            return await self.labels(names, templates or "none")
        if head := self.label_sets.head(label_set):
            return head
        kept = self.label_sets.get(label_set)
        if kept.labels is None:
            raise Problem(400, "too_many_labels", f"{label_set!r} has too many labels to sort by", param="label_set")
        return await self.labels(kept.labels, templates or kept.templates)

    async def check(self) -> float:
        """Embed a text and a picture through the same queue as everybody; seconds that took.

        However many ask, one check runs at a time, and its answer is good for a second.

        Raises:
            Problem: 503, the answer is not what it was at the start.
        """
        loop = asyncio.get_running_loop()
        async with self._checking:
            if loop.time() > self._checked + _CHECK_SECONDS:
                started = loop.time()
                rows = await self._embed_probes()
                if not all(float(row @ first) > _SAME for row, first in zip(rows, self._probes, strict=True)):
                    raise Problem(503, "unhealthy", "the encoder answers otherwise than it did at the start")
                self._checked = loop.time()
                self._check_took = self._checked - started
            return self._check_took

    async def _embed_probes(self) -> tuple[FloatArray, FloatArray]:
        return await self.batcher.text(_PROBE), (await self.batcher.picture(self._probe_picture))[0]

    def _probe_picture(self) -> Pixels:
        image, info = open_image(np.full((32, 32, 3), 127, np.uint8))
        return Pixels(self.encoder.preprocessing(image, info), info)

    def _read_all(self) -> None:
        with self.index.snapshot() as parts:
            self.collection.replace_all(parts)

    async def _follow(self) -> None:
        """Take in what other programs have committed to the index."""
        loop = asyncio.get_running_loop()
        pause = _LOOK_SECONDS
        while True:
            await asyncio.sleep(pause)
            pause = _LOOK_SECONDS
            try:
                if await self.in_thread(self.index.changed_by_others):
                    started = loop.time()
                    await self.in_thread(self._read_all)
                    pause = max(_LOOK_SECONDS, 10 * (loop.time() - started))
            except Exception as error:
                _log.warning("the index could not be read again: %r", error)


def _check_texts(names: Sequence[str], templates: str) -> None:
    count = len(names) * len(get_templates(templates))
    if count > _LABEL_TEXTS:
        hint = "take fewer templates, or build a label set with `nunbit labels build` and serve it with --labels"
        raise Problem(413, "too_many", f"{count:,} texts of labels, at most {_LABEL_TEXTS:,}", hint, "labels")
