"""WordNet's nouns, read from its database files: lemmas, hypernyms, glosses by offset.

ImageNet names a class by the offset of its noun in WordNet 3.0: ``n02123045`` is offset ``02123045``.
Format: the manual page wndb(5WN).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nunbit.errors import UsageError

_HYPERNYM = ("@", "@i")


@dataclass(frozen=True, slots=True)
class Synset:
    """One concept: its words, the offsets of what it is a kind of, and its definition."""

    lemmas: tuple[str, ...]
    hypernyms: tuple[str, ...]
    gloss: str


def read_nouns(folder: Path) -> dict[str, Synset]:
    """Read ``folder/data.noun``.

    Returns:
        Synset by eight-digit offset.

    Raises:
        UsageError: The file is not there.
    """
    path = folder / "data.noun"
    if not path.is_file():
        hint = "install WordNet 3.0's database (Debian: wordnet-base) and give its folder"
        raise UsageError(f"there is no {path}", hint=hint)
    lines = path.read_text(encoding="latin-1").splitlines()
    return dict(_parse(line) for line in lines if not line.startswith("  "))


def _parse(line: str) -> tuple[str, Synset]:
    fields, _, definition = line.partition(" | ")
    field = fields.split()
    words = int(field[3], 16)
    lemmas = tuple(field[4 + 2 * word].replace("_", " ") for word in range(words))
    first = 4 + 2 * words
    pointers = [field[first + 1 + 4 * i : first + 5 + 4 * i] for i in range(int(field[first]))]
    hypernyms = tuple(offset for symbol, offset, part, _ in pointers if symbol in _HYPERNYM and part == "n")
    gloss = definition.strip().split(";")[0].split('"')[0].strip()  # the definition without its examples
    return field[0], Synset(lemmas, hypernyms, gloss)


def ancestors(nouns: Mapping[str, Synset], offset: str) -> list[str]:
    """Everything that a concept is a kind of, itself first, nearest first, each once."""
    found = [offset]
    for current in found:  # grows while it is walked: breadth first
        found.extend(parent for parent in nouns[current].hypernyms if parent not in found)
    return found
