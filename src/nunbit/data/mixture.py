"""Several sources → one endless, shuffled stream that can go on from any position.

Place in the river: sources → `Mixture` → training. What is at a position depends on the seed, the position and the
files alone, not on who reads it: every process of a training run makes the same stream and takes its positions of it.
"""

from __future__ import annotations

import hashlib
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, chain, count
from random import Random

from nunbit.data.opening import open_source
from nunbit.data.source import Draft, Source, SourceConfig
from nunbit.errors import ConfigError, UsageError
from nunbit.types import ImageText, Rejected

BUFFER_BYTES = 256 << 20
"""What the pictures in one source's shuffle buffer may take, where they have to be in memory."""


class Mixture:
    """Sources mixed by weight, each shuffled anew in every pass.

    The share of a source is its weight times its count where the counts of all sources are known, so that with equal
    weights an epoch is, on average, every record once; where one is not known (tars), shares are the weights alone.
    Each position draws its source by itself, so shares hold on average, not exactly.

    A source is shuffled in a buffer: parts (tar shards, row groups, folders, files) come in random order, and of the
    records that are read ahead a random one is taken. In each of its passes every record comes exactly once. A single
    large sorted file is mixed no further than the buffer reaches.

    Args:
        sources: What is mixed, with names that differ.
        seed: Of every random choice.
        shuffle_buffer: Records that are read ahead, for each source. Pictures in Parquet, in compressed and in
            remote tars are in memory meanwhile; then the buffer ends at `BUFFER_BYTES`, too.
        passes: How often each source is read. A source that is through is drawn no more, and the stream ends with the
            last one. Endless when None.
        on_rejected: Called for each record that is set aside, once in the life of the mixture.

    Raises:
        ConfigError: No source, two of one name, or a source that cannot be meant.
        UsageError: A source that is not there.
    """

    def __init__(
        self,
        sources: Sequence[SourceConfig],
        *,
        seed: int,
        shuffle_buffer: int = 16384,
        passes: int | None = None,
        on_rejected: Callable[[Rejected], None] = lambda _: None,
    ) -> None:
        if not sources:
            raise ConfigError("a mixture needs at least one source")
        if shuffle_buffer < 1 or (passes is not None and passes < 1):
            raise ConfigError(f"shuffle_buffer is {shuffle_buffer}, passes {passes}: both must be at least 1")
        self.sources = tuple(open_source(config) for config in sources)
        twice = [name for name, times in Counter(source.name for source in self.sources).items() if times > 1]
        if twice:
            raise ConfigError(f"two sources are called {twice[0]!r}", hint="give each a name of its own")
        self._seed = seed
        self._buffer = shuffle_buffer
        self._passes = passes
        self._on_rejected = on_rejected
        self._reported = [0] * len(self.sources)
        self._counts = [source.count() for source in self.sources]

    def epoch_size(self) -> int | None:
        """Records of all sources, with those that will be set aside; None when a source cannot tell."""
        known = [number for number in self._counts if number is not None]
        return sum(known) if len(known) == len(self._counts) else None

    def shares(self) -> list[float]:
        """The part of all positions that each source gets on average; they sum to 1."""
        known = self.epoch_size() is not None
        sizes = [(number or 0) if known else 1 for number in self._counts]
        parts = [source.config.weight * size for source, size in zip(self.sources, sizes, strict=True)]
        for source, part in zip(self.sources, parts, strict=True):
            if part == 0:
                raise _nothing_in(source, Counter())
        return [part / sum(parts) for part in parts]

    def signature(self) -> str:
        """sha256 (hex) over the signatures, names and weights of all sources."""
        lines = (f"{source.name}\t{source.config.weight!r}\t{source.signature()}\n" for source in self.sources)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def stream(
        self, start: int = 0, *, wanted: Callable[[int], bool] = lambda _: True
    ) -> Iterator[tuple[int, ImageText]]:
        """Read on from a position.

        Args:
            start: The first position. What comes before is gone through again, without pictures that can be read by
                themselves: a whole pass but the first of each source costs nothing.
            wanted: Which positions this reader takes (``lambda p: p % world == rank``). Of others no picture is read
                and nothing is yielded.

        Yields:
            Position and record, in the order of positions.

        Raises:
            UsageError: A source has no record at all.
        """
        if start < 0:
            raise UsageError(f"start is {start}, positions count from 0")
        shuffled = [self._shuffled(number) for number in range(len(self.sources))]
        shares = self.shares()
        alive = list(range(len(shares)))
        limits = list(accumulate(shares))
        for position, drawn in zip(count(), _uniform(self._seed), strict=False):
            draft = None
            while draft is None:
                number = alive[min(bisect(limits, drawn * limits[-1]), len(alive) - 1)]
                if position < start and self._passes is None:
                    shuffled[number].owed += 1
                    break
                draft = shuffled[number].next()
                if draft is None:
                    alive.remove(number)
                    limits = list(accumulate(shares[one] for one in alive))
                    if not alive:
                        return
            if draft is not None and position >= start and wanted(position):
                yield position, draft.load(self.sources[number].name)

    def _shuffled(self, number: int) -> _Shuffled:
        def reject(nth: int, rejected: Rejected) -> None:
            if nth >= self._reported[number]:
                self._reported[number] = nth + 1
                self._on_rejected(rejected)

        return _Shuffled(self.sources[number], self._seed, self._buffer, self._passes, reject)


class _Shuffled:
    """The passes of one source, one after another.

    Args:
        source: What is read.
        seed: With the source's name and the number of the pass it decides the order.
        buffer: Records read ahead.
        passes: How many there are; None for no end.
        reject: Called with the number of what is set aside in a pass, and with it.
    """

    def __init__(
        self, source: Source, seed: int, buffer: int, passes: int | None, reject: Callable[[int, Rejected], None]
    ) -> None:
        self._source = source
        self._source = source
        self._seed = seed
        self._buffer = buffer
        self._passes = passes
        self._reject = reject
        self._pass = 0
        self._taken = 0  # records of this pass
        self._length = 0  # records of every pass; known when the first is through
        self._reading = self._read()
        self.owed = 0  # how many records were drawn but not asked for

    def next(self) -> Draft | None:
        """The next record, or None after the last pass."""
        while self.owed:
            left = self._length - self._taken
            if self._length and self.owed >= left:
                passes, self.owed = divmod(self.owed - left, self._length)
                self._begin(self._pass + 1 + passes)
            else:
                self.owed -= 1
                self._take()
        return self._take()

    def _take(self) -> Draft | None:
        while (draft := next(self._reading, None)) is None:
            if self._pass == self._passes:
                return None
            self._length = self._length or self._taken
            self._begin(self._pass + 1)
        self._taken += 1
        return draft

    def _begin(self, number: int) -> None:
        self._pass, self._taken = number, 0
        self._reading = iter(()) if number == self._passes else self._read()

    def _read(self) -> Iterator[Draft]:
        """One pass."""
        random = Random(f"{self._seed}\n{self._source.name}\n{self._pass}")
        parts = list(range(self._source.parts))
        random.shuffle(parts)
        buffer = list[Draft]()
        held, found = 0, False
        rejected = Counter[str]()
        for item in chain.from_iterable(map(self._source.drafts, parts)):
            if isinstance(item, Rejected):
                self._reject(rejected.total(), item)
                rejected[item.reason] += 1
                continue
            found = True
            buffer.append(item)
            held += item.held_bytes
            while len(buffer) >= self._buffer or held > BUFFER_BYTES:
                draft = _draw(buffer, random)
                held -= draft.held_bytes
                yield draft
        while buffer:
            yield _draw(buffer, random)
        if not found:
            raise _nothing_in(self._source, rejected)


def _draw(buffer: list[Draft], random: Random) -> Draft:
    """Take one out, any."""
    place = int(random.random() * len(buffer))
    buffer[place], buffer[-1] = buffer[-1], buffer[place]
    return buffer.pop()


def _uniform(seed: int) -> Iterator[float]:
    """A number in [0, 1) for each position."""
    random = Random(f"{seed}\ndraws")
    while True:
        yield random.random()


def _nothing_in(source: Source, rejected: Counter[str]) -> UsageError:
    reasons = ", ".join(f"{times} {reason}" for reason, times in rejected.most_common())
    return UsageError(
        f"the source {source.name} ({source.config.path}) has no record" + (f": {reasons}" if reasons else ""),
        hint="check its path, its kind and its columns",
    )
