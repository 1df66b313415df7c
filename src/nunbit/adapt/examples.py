"""Pictures that somebody sorted → rows and targets.

Place in the river: a folder of classes or a table → `examples` → the ladder. Pictures are embedded once: what an
encoder said is kept by the content of the file.

Shapes: N examples, C classes, D width.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nunbit.adapt.ladder import Shots
from nunbit.adapt.near import near_groups
from nunbit.class_folders import class_folders, class_pictures, tidy_label
from nunbit.data import SourceConfig, open_source
from nunbit.data.source import LABEL_COLUMNS
from nunbit.encode import Encoded, Encoder, encode_stream
from nunbit.errors import UsageError
from nunbit.row_cache import RowCache
from nunbit.types import Rejected

if TYPE_CHECKING:
    from nunbit.types import FloatArray

_KEPT_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Example:
    """A picture and what it shows.

    Attributes:
        name: Where it is, for people.
        image: A path, or the bytes of an image file.
        labels: One, or in a table with several labels a picture any number.
    """

    name: str
    image: str | bytes
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Examples:
    """Sorted pictures, not yet looked at.

    Attributes:
        classnames: C labels, in the order in which they were met; those without an example are last.
        examples: As they were found.
        multi_label: A picture has several labels, or none.
        rejected: What was set aside.
    """

    classnames: tuple[str, ...]
    examples: tuple[Example, ...]
    multi_label: bool
    rejected: tuple[Rejected, ...]


def read_examples(path: str | os.PathLike[str], more_labels: Sequence[str] = (), *, at_least: int = 2) -> Examples:
    """Find examples.

    Args:
        path: A folder with a folder of pictures a class; or a table (CSV, JSONL, Parquet) with the columns ``image``
            and ``label``, or ``labels`` with a list.
        more_labels: Classes that may have no example.
        at_least: Classes that are needed; one is enough to measure on.

    Raises:
        UsageError: Fewer classes, labels that differ in capitals alone, or nothing to learn from.
    """
    found = _from_folders(Path(path)) if os.path.isdir(path) else _from_table(os.fspath(path))
    examples = [one for one in found if isinstance(one, Example)]
    rejected = [one for one in found if isinstance(one, Rejected)]
    names = dict.fromkeys(label for one in examples for label in one.labels)
    classnames = tuple(dict.fromkeys([*names, *map(tidy_label, more_labels)]))
    if not examples:
        reason = f"the first was set aside: {rejected[0].reason}" if rejected else "there is no picture"
        raise UsageError(f"{os.fspath(path)} holds no example", hint=reason)
    _check_names(classnames, os.fspath(path), at_least)
    several = any(len(one.labels) != 1 for one in examples)
    return Examples(classnames, tuple(examples), several, tuple(rejected))


def embed_examples(
    encoder: Encoder, examples: Examples, *, progress: Callable[[int, int], None] | None = None
) -> tuple[Shots, tuple[Example, ...], tuple[Rejected, ...]]:
    """Look at examples.

    The same picture twice in one class counts once: held out, it would be said by its own copy. The same picture under
    different labels is set aside everywhere, with the reason ``"in several classes"``: one of the labels is wrong.

    Args:
        encoder: Any encoder.
        examples: As `read_examples` finds them.
        progress: Told how many pictures are done, and of how many.

    Returns:
        Rows and targets, near duplicates in one group; the examples that they are of; everything that was set aside.

    Raises:
        UsageError: Nothing is left to learn from.
    """
    digests, rejected = _digests(examples.examples)
    usable, doubtful = _without_copies(examples.examples, digests)
    rejected += doubtful
    rows: dict[str, FloatArray] = {}
    for item in _embedded(encoder, [(digests[one.name], one) for one in usable], progress):
        if isinstance(item, Rejected):
            rejected.append(item)
        else:
            rows[item[0]] = item[1]
    kept = tuple(one for one in usable if one.name in rows)
    if not kept:
        raise UsageError("no example could be used", hint=f"the first was set aside: {rejected[0].reason}")
    position = {name: number for number, name in enumerate(examples.classnames)}
    targets = np.zeros((len(kept), len(position)), bool)
    for number, one in enumerate(kept):
        targets[number, [position[label] for label in one.labels]] = True
    found = np.stack([rows[one.name] for one in kept])
    shots = Shots(found, targets, examples.multi_label, near_groups([one.image for one in kept], found))
    return shots, kept, (*examples.rejected, *rejected)


def _from_folders(folder: Path) -> list[Example | Rejected]:
    folders = class_folders(folder, at_least=1)
    return [
        path if isinstance(path, Rejected) else Example(str(path), str(path), (label,))
        for path, label in class_pictures(folders)
    ]


def _from_table(path: str) -> list[Example | Rejected]:
    source = open_source(SourceConfig(path, texts=LABEL_COLUMNS))
    found: list[Example | Rejected] = []
    for record in source.records():
        if isinstance(record, Rejected):
            found.append(record)
            continue
        name = record.image if isinstance(record.image, str) else record.key
        found.append(Example(name, record.image, tuple(dict.fromkeys(map(tidy_label, record.texts)))))
    return found


def _check_names(classnames: Sequence[str], where: str, at_least: int) -> None:
    if len(classnames) < at_least:
        message = f"{where} holds one class, {classnames[0]!r}, expected 2 or more"
        raise UsageError(message, hint="give examples of something else, or name more labels with --labels")
    seen: dict[str, str] = {}
    for name in classnames:
        if not name:
            raise UsageError(f"{where} holds an empty label")
        if (other := seen.setdefault(name.casefold(), name)) != name:
            raise UsageError(f"the classes {other!r} and {name!r} differ in capitals alone", hint="write them alike")


def _digests(examples: Iterable[Example]) -> tuple[dict[str, str], list[Rejected]]:
    """sha256 of every picture's file, by the example's name."""
    digests: dict[str, str] = {}
    rejected = []
    for one in examples:
        try:
            content = one.image if isinstance(one.image, bytes) else Path(one.image).read_bytes()
        except OSError as error:
            rejected.append(Rejected(one.name, "not readable", error.strerror or str(error)))
            continue
        digests[one.name] = hashlib.sha256(content).hexdigest()
    return digests, rejected


def _without_copies(examples: Sequence[Example], digests: dict[str, str]) -> tuple[list[Example], list[Rejected]]:
    same: dict[str, list[Example]] = defaultdict(list)
    for one in examples:
        if one.name in digests:
            same[digests[one.name]].append(one)
    usable, rejected = [], []
    for copies in same.values():
        first = copies[0]
        labels = {frozenset(one.labels) for one in copies}
        if len(labels) > 1:
            for one in copies:
                other = next(two for two in copies if set(two.labels) != set(one.labels))
                detail = f"it is {', '.join(one.labels)} here and {', '.join(other.labels)} in {other.name}"
                rejected.append(Rejected(one.name, "in several classes", detail))
            continue
        usable.append(first)
        rejected += [Rejected(one.name, "copy", f"the same file as {first.name}") for one in copies[1:]]
    return usable, rejected


def _embedded(
    encoder: Encoder, wanted: Sequence[tuple[str, Example]], progress: Callable[[int, int], None] | None
) -> Iterator[tuple[str, FloatArray] | Rejected]:
    """Rows by name, from the cache or from the encoder."""
    cache = RowCache("pictures", encoder, [])
    known = cache.read(digest for digest, _ in wanted)
    yield from ((one.name, known[digest]) for digest, one in wanted if digest in known)
    missing = [(digest, one) for digest, one in wanted if digest not in known]
    done, keep = len(wanted) - len(missing), cache.has_room(len(missing))
    fresh: list[tuple[str, FloatArray]] = []
    stream = encode_stream(encoder, (one.image for _, one in missing))
    for (digest, one), item in zip(missing, stream, strict=True):
        done += 1
        if progress is not None:
            progress(done, len(wanted))
        if not isinstance(item, Encoded):
            yield Rejected(one.name, item.reason, item.detail)
            continue
        fresh.append((digest, item.embedding))
        yield one.name, item.embedding
        if keep and len(fresh) == _KEPT_AT_ONCE:
            cache.write([key for key, _ in fresh], np.stack([row for _, row in fresh]))
            fresh.clear()
    if keep and fresh:
        cache.write([key for key, _ in fresh], np.stack([row for _, row in fresh]))
