"""Records → what their pictures are like: decoded in threads, in order, a bad picture becomes a ``Rejected``."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from nunbit.cores import usable_cores
from nunbit.curate.facts import PictureFacts, measure
from nunbit.curate.kept_facts import KeptFacts
from nunbit.errors import ImageError
from nunbit.types import ImageText, Rejected

_AHEAD = 4  # pictures for each thread: small ones come in before a large one is done


def measure_stream(
    records: Iterable[ImageText | Rejected], kept: KeptFacts, *, threads: int | None = None
) -> Generator[tuple[ImageText, PictureFacts | Rejected] | Rejected, None, None]:
    """Measure an endless stream of records in bounded memory.

    Args:
        records: Read lazily, in the thread that reads the stream.
        kept: What is known of files already; what is measured is added.
        threads: Decoding threads, by default the number of cores.

    Yields:
        In order, each record with its facts or the reason why its picture cannot be decoded; and whatever the source
        had set aside.
    """
    workers = threads or usable_cores()
    waiting: deque[tuple[ImageText, Future[PictureFacts | Rejected]] | Rejected] = deque()
    rest = iter(records)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="nunbit-measure")
    try:
        while True:
            for record in islice(rest, max(0, workers * _AHEAD - len(waiting))):
                if isinstance(record, Rejected):
                    waiting.append(record)
                else:
                    waiting.append((record, pool.submit(_measure, record, kept)))
            if not waiting:
                return
            item = waiting.popleft()
            yield item if isinstance(item, Rejected) else (item[0], item[1].result())
    finally:
        pool.shutdown(cancel_futures=True)


def _measure(record: ImageText, kept: KeptFacts) -> PictureFacts | Rejected:
    image = record.image
    if isinstance(image, str) and (known := kept.find(image)):
        return known
    try:
        facts = measure(image)
    except ImageError as error:
        return Rejected(record.key, error.reason, error.message)
    if isinstance(image, str):
        kept.keep(image, facts)
    return facts
