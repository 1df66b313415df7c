"""A label set: names, synonyms, parents and their embeddings in a folder, from ten labels to millions.

Place in the river: words → encoder → `LabelSet` → recognition. The embedding of a text is computed once for an encoder
and its templates; the folder refuses any other.

Shapes: N queries, D width.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from nunbit.errors import UsageError
from nunbit.labels import journal
from nunbit.labels.additions import Additions
from nunbit.labels.base import Base
from nunbit.labels.build import BuildReport, Plan, build_base, embed_fixed
from nunbit.labels.files import LabelEntry, LabelFile, make_entry, normalize, read_labels
from nunbit.labels.folder import (
    Identity,
    check_encoder,
    check_templates,
    check_usable,
    folder_errors,
    is_label_set,
    read_identity,
    writer_lock,
)
from nunbit.labels.known import KnownRows
from nunbit.labels.partition import Competitors
from nunbit.labels.search import Searcher
from nunbit.text.templates import get_templates
from nunbit.types import Prediction

if TYPE_CHECKING:
    import numpy.typing as npt

    from nunbit.encode import Encoder
    from nunbit.types import FloatArray

HEAD = 200
"""Labels whose share of the softmax's sum is computed one by one; the others' is estimated."""


@dataclass(frozen=True, slots=True)
class LabelMatch:
    """One hit: the label, its cosine with the query, and which of its texts was the nearest."""

    label: str
    similarity: float
    text: str


class LabelSet:
    """An opened label set; made by `open` or `build`.

    What others change in the folder is seen when it is opened again, or before the next `add` or `remove`.

    Args:
        folder: Of the set.
        encoder: The one it was made with; None to look, to find ancestors and to remove.
    """

    def __init__(self, folder: Path, encoder: Encoder | None) -> None:
        self.folder = folder
        self._encoder = encoder
        self._load()

    @classmethod
    def open(cls, folder: str | os.PathLike[str], encoder: Encoder | None = None) -> Self:
        """Open a set. Vectors are mapped into memory, not read.

        Args:
            folder: Of the set.
            encoder: The one it was made with; without it nothing can be added, nor `predict` be called.

        Raises:
            StoreNotFound: There is none, or its first build is not done.
            EncoderMismatch: It was made with another encoder.
            StoreError: It is damaged.
        """
        return cls(Path(folder), encoder)

    @classmethod
    def build(
        cls,
        file: str | os.PathLike[str],
        into: str | os.PathLike[str],
        encoder: Encoder,
        *,
        templates: str | Sequence[str] = "none",
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> tuple[Self, BuildReport]:
        """Make a set hold exactly the labels of a file. Run again after an interruption, it goes on.

        Labels that were added to the set but are not in the file are gone after it; texts that the set knows are not
        embedded again.

        Args:
            file: ``.txt``, ``.jsonl``, ``.csv`` or ``.tsv``, as `nunbit.labels.files` reads it.
            into: Folder; made when it is not there.
            encoder: Embeds the texts.
            templates: Sentences around each, as in `nunbit.recognition.Labels`.
            progress: Called with rows done and rows in all.

        Raises:
            UsageError: A file that cannot be meant.
            EncoderMismatch: The set there was made with another encoder or other templates.
            StoreError: The folder is something else, or somebody is writing to it.

        Example:
            >>> labels, report = LabelSet.build("nouns.txt", "nouns.labels", encoder)
        """
        folder, sentences = Path(into), get_templates(templates)
        check_usable(folder)
        if is_label_set(folder):  # before a long file is read
            check_templates(folder, cls(folder, encoder).identity, sentences)
        found = read_labels(Path(file))
        with folder_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with writer_lock(folder):
            known, generation = KnownRows(None, Additions(encoder.embedding_size)), 0
            if is_label_set(folder):
                before = cls(folder, encoder)
                check_templates(folder, before.identity, sentences)
                known, generation = before._known_rows(), before.identity.generation + 1
            report = build_base(folder, found, Plan(encoder, sentences, known, generation, progress))
        return cls(folder, encoder), report

    def __len__(self) -> int:
        return len(self._base) - int(self._removed.sum()) + len(self._added)

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    @property
    def identity(self) -> Identity:
        """Encoder, templates and state of the folder."""
        return self._identity

    @property
    def changes(self) -> int:
        """Labels added to or removed from what was built."""
        return int(self._removed.sum()) + len(self._added)

    @property
    def exact(self) -> bool:
        """Whether a search compares with every row, as it does in small sets."""
        return self._searcher.exact

    def get(self, name: str) -> LabelEntry | None:
        """The label of this name with its synonyms and parents, None when there is none."""
        number = self._added.find(name := normalize(name))
        if number is not None:
            return self._added.get(number).entry
        number = self._base.find(name)
        return None if number is None or self._removed[number] else self._base.entry(number)

    def entries(self) -> Iterator[LabelEntry]:
        """All labels: those that were built, in the order of their file, then those that were added."""
        yield from (self._base.entry(number) for number in np.flatnonzero(~self._removed).tolist())
        yield from (label.entry for label in self._added.labels())

    def ancestors(self, name: str) -> list[str]:
        """Everything that a label is a kind of: nearest first, each once, itself not.

        Raises:
            UsageError: There is no such label.
        """
        label = self.get(name)
        if label is None:
            raise UsageError(f"there is no label {name!r} in {self.folder}", hint="names are compared letter by letter")
        found = list(label.parents)
        for current in found:  # grows while it is walked: breadth first
            above = self.get(current)
            found.extend(parent for parent in (above.parents if above else ()) if parent not in found)
        return [ancestor for ancestor in found if ancestor != label.name]

    def search(self, embeddings: FloatArray, top_k: int = 10, *, threads: int | None = None) -> list[list[LabelMatch]]:
        """The labels nearest to each embedding; a label is as near as the nearest of its texts.

        In sets of `nunbit.labels.search.EXACT_ROWS` rows and more a few of the nearest may be missed: less than 1 % of
        the first ten, see `benchmarks/labels.py`.

        Args:
            embeddings: (N, D) float32, unit rows of the set's encoder.
            top_k: At least 1.
            threads: Batches searched at a time, by default the number of cores.

        Returns:
            For each embedding at most ``top_k`` labels, the most similar first.
        """
        return [
            [LabelMatch(self._name(label), similarity, self._text(label, row)) for label, similarity, row in hits]
            for hits in self._search(self._checked(embeddings, top_k), top_k, threads)
        ]

    def predict(self, embeddings: FloatArray, top_k: int = 5) -> list[tuple[Prediction, ...]]:
        """Labels with probabilities that count all labels of the set, shown or not.

        With a ``logit_bias`` (SigLIP) each probability is a sigmoid by itself. Otherwise it is a softmax over all
        labels. Its sum is exact in a set that is searched in full; in others the `HEAD` nearest labels and those that
        were added enter exactly, the rest by a sample (`nunbit.labels.partition`).

        Args:
            embeddings: (N, D) float32, unit rows of the set's encoder.
            top_k: Labels for each, at least 1.

        Raises:
            UsageError: The set was opened without its encoder.
        """
        encoder, queries = self._need_encoder(), self._checked(embeddings, top_k)
        head = len(self) if self.exact else max(HEAD, top_k)
        predicted = []
        for query, hits in zip(queries, self._search(queries, max(1, head), None), strict=True):
            similarity = np.array([hit[1] for hit in hits], np.float64)
            logits = encoder.logit_scale * similarity
            if encoder.logit_bias is not None:
                probability = np.exp(-np.logaddexp(0, -(logits + encoder.logit_bias)))
            else:
                taken = np.array([hit[0] for hit in hits], np.int64)
                total = np.logaddexp.reduce(np.append(logits, self._rest(query, encoder.logit_scale, taken)))
                probability = np.exp(logits - total)
            rows = zip(hits[:top_k], probability.tolist(), strict=False)
            predicted.append(tuple(Prediction(self._name(hit[0]), p, hit[1]) for hit, p in rows))
        return predicted

    def add(self, labels: Iterable[str | LabelEntry]) -> int:
        """Add labels, each in place of the one of its name if there is one; they are on the disk when this returns.

        Returns:
            How many there are now that were not there before.

        Raises:
            UsageError: A label that cannot be meant, or the set was opened without its encoder.
        """
        encoder = self._need_encoder()
        entries = [_entry(label) for label in labels]
        texts = [text for entry in entries for text in entry.texts]
        if not texts:
            return 0
        fixed, scale = embed_fixed(encoder, texts, self._identity.templates)
        ends = np.cumsum([len(entry.texts) for entry in entries])
        parts = zip(entries, np.split(fixed, ends[:-1]), np.split(scale, ends[:-1]), strict=True)
        with self._writing() as write:
            before = len(self)
            write([journal.Added(*part) for part in parts])
            return len(self) - before

    def remove(self, names: Iterable[str]) -> int:
        """Remove labels with their synonyms. Labels that have them as parents stay as they are.

        Returns:
            How many were there.
        """
        with self._writing() as write:
            there = [name for name in dict.fromkeys(map(normalize, names)) if name in self]
            write([journal.Removed(name) for name in there])
            return len(there)

    def compact(self, progress: Callable[[int, int], None] = lambda done, total: None) -> BuildReport:
        """Build the set anew from what it holds, so that added labels are searched as fast as the others.

        Nothing is embedded again. Interrupted, it leaves the set as it was.
        """
        encoder = self._need_encoder()
        with writer_lock(self.folder):
            self._load()
            found = LabelFile(list(self.entries()))
            if not found.entries:
                raise UsageError(f"{self.folder} has no label left", hint="add one, or delete the folder")
            plan = Plan(encoder, self._identity.templates, self._known_rows(), self._identity.generation + 1, progress)
            report = build_base(self.folder, found, plan)
            self._load()
        return report

    def _load(self) -> None:
        self._identity = read_identity(self.folder)
        if self._encoder is not None:
            check_encoder(self.folder, self._identity, self._encoder)
        self._base = Base(self._identity.base_folder(self.folder))
        self._removed = np.zeros(len(self._base), bool)
        self._added = Additions(self._identity.embedding_size)
        self._searcher = Searcher(self._base, self._removed)
        self._competitors: Competitors | None = None
        self._journal_read = 0
        self._read_journal()

    def _read_journal(self) -> None:
        """Take in what the journal has gained."""
        path = self._identity.journal(self.folder)
        size = journal.whole_size(path)
        for change in journal.read(path, self._identity.embedding_size, start=self._journal_read):
            name = change.name if isinstance(change, journal.Removed) else change.entry.name
            number = self._base.find(name)
            if number is not None:
                self._removed[number] = True
            if isinstance(change, journal.Removed):
                self._added.remove(name)
            else:
                self._added.add(change)
        self._journal_read = size

    @contextmanager
    def _writing(self) -> Iterator[Callable[[Sequence[journal.Added | journal.Removed]], None]]:
        with writer_lock(self.folder):
            if read_identity(self.folder) != self._identity:  # somebody built it anew
                self._load()
            self._read_journal()

            def write(changes: Sequence[journal.Added | journal.Removed]) -> None:
                if changes:
                    journal.append(self._identity.journal(self.folder), changes)
                    self._read_journal()

            yield write

    def _known_rows(self) -> KnownRows:
        return KnownRows(self._base, self._added)

    def _need_encoder(self) -> Encoder:
        if self._encoder is None:
            raise UsageError("the label set was opened without its encoder", hint="LabelSet.open(folder, encoder)")
        return self._encoder

    def _checked(self, embeddings: FloatArray, top_k: int) -> FloatArray:
        if top_k < 1:
            raise UsageError(f"top_k is {top_k}, it must be at least 1")
        queries = np.ascontiguousarray(embeddings, np.float32)
        width = self._identity.embedding_size
        if queries.ndim != 2 or queries.shape[1] != width:
            raise UsageError(f"the embeddings have shape {queries.shape}, expected (N, {width})")
        return queries

    def _search(self, queries: FloatArray, top_k: int, threads: int | None) -> list[list[tuple[int, float, int]]]:
        """Label, similarity and row of each hit; added labels are numbered after those of the base."""
        similarity, numbers, which = self._added.similarity(queries)
        found = self._searcher.search(queries, top_k, threads=threads)
        if not len(numbers):
            return [list(zip(f.label.tolist(), f.similarity.tolist(), f.row.tolist(), strict=True)) for f in found]
        hits = []
        for built, near, text in zip(found, similarity, which, strict=True):
            both = np.concatenate([built.similarity, near])
            label = np.concatenate([built.label, numbers + len(self._base)])
            row = np.concatenate([built.row, text])
            best = np.argsort(-both, kind="stable")[:top_k]
            hits.append(list(zip(label[best].tolist(), both[best].tolist(), row[best].tolist(), strict=True)))
        return hits

    def _rest(self, query: FloatArray, logit_scale: float, taken: npt.NDArray[np.int64]) -> float:
        """Logarithm of what the labels beyond the head add to the softmax's sum."""
        total = -np.inf
        similarity, numbers, _ = self._added.similarity(query[None])
        beyond = ~np.isin(numbers + len(self._base), taken)
        if beyond.any():
            total = np.logaddexp.reduce(logit_scale * similarity[0, beyond].astype(np.float64))
        if self.exact:
            return float(total)
        if self._competitors is None:
            self._competitors = Competitors(self._base, self._removed)
        rest = self._competitors.log_sum(query, logit_scale, taken[taken < len(self._base)])
        return float(np.logaddexp(total, rest))

    def _name(self, label: int) -> str:
        built = len(self._base)
        return self._base.name(label) if label < built else self._added.get(label - built).entry.name

    def _text(self, label: int, row: int) -> str:
        built = len(self._base)
        return self._base.text(row) if label < built else self._added.get(label - built).entry.texts[row]


def _entry(label: str | LabelEntry) -> LabelEntry:
    entry = make_entry(label) if isinstance(label, str) else make_entry(label.name, label.synonyms, label.parents)
    if isinstance(entry, str):
        raise UsageError(f"the label {label!r} cannot be added: {entry}")
    return entry
