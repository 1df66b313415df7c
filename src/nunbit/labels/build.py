"""File of labels → the base of a label set, in stages that a kill cannot undo.

1. The file is read anew in every run: seconds for a million labels.
2. Texts are embedded, `SHARD_ROWS` at a time. A shard that is on the disk is never embedded again, and a text that
   the present set knows is not embedded at all.
3. Centers, rotation and lists are computed from the shards, and the base is written into ``building/base``.
4. ``building/base`` becomes ``base-ID``, and ``labels.json`` names it: until then the old set holds.

Every stage depends on its input alone (random choices have a fixed seed), so that a run that was killed and run again
ends with the files of one that was not.

Shapes: N labels, R rows, D width, L lists.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nunbit.durable import replace_file, sync_folder
from nunbit.errors import UsageError
from nunbit.labels import vectors
from nunbit.labels.base import write_tables
from nunbit.labels.embedding import embed_labels_uncached
from nunbit.labels.files import LabelEntry, LabelFile, RejectedRow
from nunbit.labels.folder import BUILDING, Identity, folder_errors, write_identity
from nunbit.labels.known import KnownRows
from nunbit.labels.search import EXACT_ROWS

if TYPE_CHECKING:
    import numpy.typing as npt

    from nunbit.encode import Encoder
    from nunbit.types import FloatArray

SHARD_ROWS = 2048
SAMPLE_A_LIST = 64
"""Rows that k-means sees for each list."""

SAMPLE_AT_MOST = 65_536
"""Rows that the rotation is computed from."""


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did.

    Attributes:
        labels: In the set now.
        rows: Names and synonyms, each a row.
        embedded: Rows embedded by this run.
        reused: Rows that the set, or a run before that did not end, had embedded already.
        merged: Rows of the file that repeated a label.
        reasons: How many rows of the file were set aside for which reason.
        rejected: The first hundred of them.
        seconds: That this run took.
    """

    labels: int
    rows: int
    embedded: int
    reused: int
    merged: int
    reasons: Counter[str]
    rejected: list[RejectedRow]
    seconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """How a base is built.

    Attributes:
        encoder: Embeds the texts that are not known.
        templates: Sentences around each.
        known: Rows that the present set has.
        generation: Of the journal that the new base begins with.
        progress: Called with rows done and rows in all.
    """

    encoder: Encoder
    templates: tuple[str, ...]
    known: KnownRows
    generation: int
    progress: Callable[[int, int], None]

    def identify(self, entries: Sequence[LabelEntry]) -> Identity:
        """What ``labels.json`` will say; the base is named by all that decides its content."""
        encoder, fingerprint = self.encoder, self.encoder.fingerprint
        digest = hashlib.sha256(json.dumps([fingerprint, self.templates]).encode())
        for entry in entries:
            digest.update(json.dumps([entry.name, entry.synonyms, entry.parents]).encode())
        base = digest.hexdigest()[:16]
        return Identity(encoder.name, fingerprint, encoder.embedding_size, self.templates, base, self.generation)


def build_base(folder: Path, found: LabelFile, plan: Plan) -> BuildReport:
    """Make a folder hold the labels found, going on where a run before was stopped.

    The caller holds the writer's lock.
    """
    start = time.perf_counter()
    identity = plan.identify(found.entries)
    texts = [text for entry in found.entries for text in entry.texts]
    target, building, embedded = identity.base_folder(folder), folder / BUILDING, 0
    with folder_errors(folder):
        if not target.exists():  # else the labels are the same, or a run was killed just before its end
            _begin(building, identity.base)
            embedded = _embed(building, texts, plan)
            base = building / "base"
            shutil.rmtree(base, ignore_errors=True)
            base.mkdir()
            _write_base(base, building, texts, found.entries)
            _sync(base)
            base.rename(target)
            sync_folder(folder)
        write_identity(folder, identity)
        _clean(folder, identity)
    return BuildReport(
        labels=len(found.entries),
        rows=len(texts),
        embedded=embedded,
        reused=len(texts) - embedded,
        merged=found.merged,
        reasons=found.reasons,
        rejected=found.rejected,
        seconds=time.perf_counter() - start,
    )


def _sync(base: Path) -> None:
    for file in base.iterdir():
        number = os.open(file, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
    sync_folder(base)


def _clean(folder: Path, identity: Identity) -> None:
    """Delete what no longer counts: other bases, other journals, what was being built."""
    kept = (identity.base_folder(folder), identity.journal(folder))
    for path in (folder / BUILDING, *folder.glob("base-*"), *folder.glob("changes-*")):
        if path.is_dir() and path not in kept:
            shutil.rmtree(path, ignore_errors=True)
        elif path not in kept:
            path.unlink(missing_ok=True)


def _begin(building: Path, identifier: str) -> None:
    plan = building / "plan.json"
    if building.exists() and (not plan.exists() or plan.read_text(encoding="utf-8") != identifier):
        shutil.rmtree(building)  # of another file, encoder or template: its shards would be wrong
    building.mkdir(exist_ok=True)
    if not plan.exists():
        replace_file(plan, lambda file: file.write(identifier.encode()))


def _shards(building: Path, rows: int) -> list[tuple[Path, slice]]:
    starts = range(0, rows, SHARD_ROWS)
    return [(building / f"shard-{at // SHARD_ROWS:06}.npz", slice(at, min(at + SHARD_ROWS, rows))) for at in starts]


def _embed(building: Path, texts: Sequence[str], plan: Plan) -> int:
    embedded, known = 0, plan.known.find(texts)
    for path, part in _shards(building, len(texts)):
        if not path.exists():
            rows = known[part]
            new = [text for text, row in zip(texts[part], rows.tolist(), strict=True) if row < 0]
            fixed = np.empty((len(rows), plan.encoder.embedding_size), np.int16)
            scale = np.empty(len(rows), np.float32)
            fixed[rows >= 0], scale[rows >= 0] = plan.known.take(rows[rows >= 0])
            if new:
                fixed[rows < 0], scale[rows < 0] = embed_fixed(plan.encoder, new, plan.templates)
            _save_shard(path, fixed, scale)
            embedded += len(new)
        plan.progress(part.stop, len(texts))
    return embedded


def _save_shard(path: Path, fixed: npt.NDArray[np.int16], scale: FloatArray) -> None:
    replace_file(path, lambda file: np.savez(file, fixed=fixed, scale=scale))


def embed_fixed(
    encoder: Encoder, texts: Sequence[str], templates: tuple[str, ...]
) -> tuple[npt.NDArray[np.int16], FloatArray]:
    """Texts → unit rows in fixed point, (texts, D) int16 and (texts,) float32.

    Raises:
        UsageError: The encoder gives a text no direction.
    """
    rows = embed_labels_uncached(encoder, texts, templates)
    length = np.linalg.norm(rows, axis=1)
    for text, size in zip(texts, length, strict=True):
        if not 0 < size < np.inf:
            raise UsageError(f"the embedding of {text!r} has length {size}, expected a positive number")
    return vectors.to_fixed((rows / length[:, None]).astype(np.float32))


def _write_base(base: Path, building: Path, texts: list[str], entries: Sequence[LabelEntry]) -> None:
    rows, shards = len(texts), _shards(building, len(texts))
    centers, rotation = _learn(shards, rows)
    nearest = np.concatenate([vectors.assign(vectors.from_fixed(*shard), centers) for _, shard in _load(shards)])
    order = np.argsort(nearest, kind="stable")  # place in the lists → row of the file
    place = np.empty_like(order)
    place[order] = np.arange(rows)
    _write_rows(base, shards, place, rotation)
    units = centers / np.maximum(np.linalg.norm(centers, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    sizes = np.bincount(nearest, minlength=len(centers))
    for name, array in (("centers", units), ("rotation", rotation), ("offsets", np.append(0, np.cumsum(sizes)))):
        np.save(base / f"{name}.npy", array)
    counts = np.array([len(entry.texts) for entry in entries], np.int64)
    label = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    np.save(base / "label_rows.npy", place.astype(np.int32))  # a label's rows lie together in the file
    np.save(base / "label_starts.npy", np.append(0, np.cumsum(counts)))
    write_tables(base, entries, [texts[row] for row in order], label[order])


def _learn(shards: Sequence[tuple[Path, slice]], rows: int) -> tuple[FloatArray, FloatArray]:
    """Centers (L, D) and rotation (D, P). A set that is searched in full has one list, and no use for a rotation."""
    _, (first_rows, _) = next(_load(shards))
    width = first_rows.shape[1]
    if rows < EXACT_ROWS:
        return np.zeros((1, width), np.float32), np.eye(width, 1, dtype=np.float32)
    lists = 2 ** round(np.log2(np.sqrt(rows)))
    size = min(rows, max(SAMPLE_A_LIST * lists, SAMPLE_AT_MOST))
    chosen = np.sort(np.random.default_rng(0).choice(rows, size, replace=False))
    sample = np.empty((size, width), np.float32)
    for part, (fixed, scale) in _load(shards):
        first, last = np.searchsorted(chosen, (part.start, part.stop))
        inside = chosen[first:last] - part.start
        sample[first:last] = vectors.from_fixed(fixed[inside], scale[inside])
    return vectors.find_centers(sample, lists), vectors.principal_rotation(sample)


def _load(
    shards: Sequence[tuple[Path, slice]],
) -> Iterator[tuple[slice, tuple[npt.NDArray[np.int16], FloatArray]]]:
    for path, part in shards:
        with np.load(path, allow_pickle=False) as shard:
            yield part, (shard["fixed"], shard["scale"])


def _write_rows(
    base: Path, shards: Sequence[tuple[Path, slice]], place: npt.NDArray[np.int64], rotation: FloatArray
) -> None:
    width, leading = rotation.shape

    def make(name: str, kind: type, *more: int) -> npt.NDArray[np.generic]:
        return np.lib.format.open_memmap(base / f"{name}.npy", "w+", kind, (len(place), *more))

    kept, scales = make("vectors", np.int16, width), make("scale", np.float32)
    lead, lead_scales = make("lead", np.int8, leading), make("lead_scale", np.float32)
    for part, (fixed, scale) in _load(shards):
        at = place[part]
        kept[at], scales[at] = fixed, scale
        lead[at], lead_scales[at] = vectors.to_lead(vectors.from_fixed(fixed, scale), rotation)
