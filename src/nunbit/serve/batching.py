"""Many requests' pictures and texts, encoded together: one queue, a latency budget, a bound, cancellation.

A request submits one picture or text and waits for its row. Whoever comes first waits at most ``latency`` seconds for
others, then the batch is encoded; while the engine is busy the next batch fills. Pictures are decoded in threads before
they queue, so that the engine never waits for a decoder. A job whose client has left is dropped before it costs
anything more.

Shapes: B batch, D width.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from nunbit.cores import usable_cores
from nunbit.images import ImageInfo
from nunbit.serve.metrics import Metrics
from nunbit.serve.problems import busy, stopping

if TYPE_CHECKING:
    from nunbit.encode import Encoder
    from nunbit.types import FloatArray

T = TypeVar("T")
TEXTS_PER_BATCH = 32


@dataclass(frozen=True, slots=True)
class Pixels:
    """A decoded picture: what the encoder reads of it, and what its header said."""

    pixel_values: FloatArray
    info: ImageInfo


@dataclass(eq=False, slots=True)
class _Job:
    payload: Any
    done: asyncio.Future[FloatArray]
    since: float = field(default_factory=time.monotonic)


class Batcher:
    """Encodes what requests submit. Made, used and closed within one event loop.

    Args:
        encoder: Encodes.
        metrics: Counts.
        latency: Seconds that the first of a batch waits for others.
        waiting: Pictures and texts that may be in here at a time; beyond, `submit` raises a 429.
    """

    def __init__(self, encoder: Encoder, metrics: Metrics, *, latency: float, waiting: int) -> None:
        self._encoder = encoder
        self._most = waiting
        self._inside = 0
        self._closing = False
        side_by_side = max(1, encoder.engine.concurrency)
        self._decoders = ThreadPoolExecutor(usable_cores(), thread_name_prefix="nunbit-decode")
        self._encoders = ThreadPoolExecutor(side_by_side + 1, thread_name_prefix="nunbit-encode")
        self._ready = asyncio.Semaphore(2 * usable_cores() + 2 * encoder.engine.batch_size * side_by_side)
        self._gathering = _Gathering(latency, self._encoders, metrics)
        self._texts = _Lane(self._gathering, _Work("text", encoder.encode_text, TEXTS_PER_BATCH, 1))
        pictures = _Work("picture", self._encode_pictures, encoder.engine.batch_size, side_by_side)
        self._pictures = _Lane(self._gathering, pictures)

    @property
    def inside(self) -> int:
        """Pictures and texts that wait or are being encoded."""
        return self._inside

    @property
    def idle_seconds(self) -> float:
        """Since something was encoded last."""
        return time.monotonic() - self._gathering.finished

    async def text(self, text: str) -> FloatArray:
        """Embed a text: (D,) float32, unit length.

        Raises:
            Problem: 429 when too many wait, 503 when the server is stopping.
            UsageError: The text has no word in it.
        """
        return await self._counted(lambda: self._texts.submit(text))

    async def picture(self, decode: Callable[[], Pixels]) -> tuple[FloatArray, ImageInfo]:
        """Embed a picture: (D,) float32, unit length, and what its header said.

        Args:
            decode: Called in a thread.

        Raises:
            Problem: As `text`.
            ImageError: From ``decode``.
        """
        return await self._counted(lambda: self._picture(decode))

    async def work(self, call: Callable[[], T]) -> T:
        """Run something else that decodes pictures, in the same threads."""
        return await asyncio.get_running_loop().run_in_executor(self._decoders, call)

    async def close(self) -> None:
        """Refuse new jobs and finish those that are inside."""
        self._closing = True
        while self._inside:
            await asyncio.sleep(0.005)
        await self._texts.close()
        await self._pictures.close()
        self._decoders.shutdown(cancel_futures=True)
        self._encoders.shutdown()

    async def _counted(self, job: Callable[[], Awaitable[T]]) -> T:
        if self._closing:
            raise stopping()
        if self._inside >= self._most:
            raise busy(f"{self._inside} pictures and texts are waiting already")
        self._inside += 1
        try:
            return await job()
        finally:
            self._inside -= 1

    async def _picture(self, decode: Callable[[], Pixels]) -> tuple[FloatArray, ImageInfo]:
        async with self._ready:  # decoded pictures are large: only so many may wait for the engine
            decoded = await self.work(decode)
            return await self._pictures.submit(decoded.pixel_values), decoded.info

    def _encode_pictures(self, payloads: Sequence[FloatArray]) -> FloatArray:
        same = len({pixels.shape for pixels in payloads}) == 1
        return self._encoder.encode_pixels(np.stack(payloads) if same else list(payloads))


@dataclass(slots=True)
class _Gathering:
    """What the lanes share: how long a batch waits for others, where it is encoded, the counts, when one was done."""

    latency: float
    threads: ThreadPoolExecutor
    metrics: Metrics
    finished: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class _Work:
    """What a lane does: payloads → rows, at most ``size`` at once, so many batches ``side_by_side``."""

    kind: str
    encode: Callable[[Sequence[Any]], FloatArray]
    size: int
    side_by_side: int


class _Lane:
    """The jobs of one kind: gathered by one task, encoded in threads."""

    def __init__(self, gathering: _Gathering, work: _Work) -> None:
        self._gathering = gathering
        self._work = work
        self._queue: deque[_Job] = deque()
        self._arrived = asyncio.Event()
        self._free = asyncio.Semaphore(work.side_by_side)
        self._running: set[asyncio.Task[None]] = set()
        self._gatherer = asyncio.create_task(self._gather())

    async def submit(self, payload: Any) -> FloatArray:
        job = _Job(payload, asyncio.get_running_loop().create_future())
        self._queue.append(job)
        self._arrived.set()
        return await job.done

    async def close(self) -> None:
        self._gatherer.cancel()
        await asyncio.gather(self._gatherer, *self._running, return_exceptions=True)

    async def _gather(self) -> None:
        while True:
            await self._arrived.wait()
            await self._free.acquire()
            batch = await self._next_batch()
            if not batch:
                self._free.release()
                continue
            task = asyncio.create_task(self._run(batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _next_batch(self) -> list[_Job]:
        """The jobs that are still wanted, once there are enough or the first has waited long enough."""
        if self._queue:
            until = self._queue[0].since + self._gathering.latency
            while len(self._queue) < self._work.size and (left := until - time.monotonic()) > 0:
                self._arrived.clear()
                try:
                    await asyncio.wait_for(self._arrived.wait(), left)
                except TimeoutError:
                    break
        batch: list[_Job] = []
        while self._queue and len(batch) < self._work.size:
            job = self._queue.popleft()
            if job.done.cancelled():
                self._gathering.metrics.dropped.inc()
            else:
                batch.append(job)
        if self._queue:
            self._arrived.set()
        else:
            self._arrived.clear()
        return batch

    async def _run(self, batch: list[_Job]) -> None:
        try:
            await self._encode_batch(batch)
        finally:
            self._free.release()

    async def _encode_batch(self, batch: list[_Job]) -> None:
        loop, metrics, started = asyncio.get_running_loop(), self._gathering.metrics, time.monotonic()
        payloads = [job.payload for job in batch]
        try:
            rows = await loop.run_in_executor(self._gathering.threads, self._work.encode, payloads)
        except Exception as error:
            if len(batch) > 1:  # one of them is to blame: alone, the others succeed
                for job in batch:
                    await self._encode_batch([job])
            elif not batch[0].done.done():
                batch[0].done.set_exception(error)
            return
        self._gathering.finished = time.monotonic()
        metrics.batch_size.labels(self._work.kind).observe(len(batch))
        metrics.encoding.labels(self._work.kind).inc(time.monotonic() - started)
        for job, row in zip(batch, rows, strict=True):
            if not job.done.done():
                job.done.set_result(row)
