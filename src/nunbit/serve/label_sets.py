"""Label sets of a server: small ones, made through the API and kept in the index's folder; large ones and heads."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nunbit.durable import replace_file
from nunbit.errors import StoreError
from nunbit.head import is_head, load_head
from nunbit.labels import LabelSet
from nunbit.recognition import check_labels
from nunbit.serve.problems import Problem
from nunbit.text.templates import get_templates

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nunbit.encode import Encoder
    from nunbit.head import Head

FOLDER = "label-sets"
MOST_SETS = 1000
_NAME = re.compile(r"[\w-]{1,64}")


@dataclass(frozen=True, slots=True)
class KeptLabels:
    """A label set.

    Attributes:
        name: Unique.
        count: Of its labels.
        templates: The name of their templates.
        labels: None for a large one, and for a head.
    """

    name: str
    count: int
    templates: str
    labels: tuple[str, ...] | None


class LabelSets:
    """All label sets of a server.

    Args:
        index: The index's folder.
        encoder: The index's.
        made: Name → folder of a set that was built by `LabelSet.build`, or of a head.

    Raises:
        EncoderMismatch: One of them was made with another encoder.
    """

    def __init__(self, index: Path, encoder: Encoder, made: Mapping[str, Path]) -> None:
        self._folder = index / FOLDER
        self._heads = {name: load_head(folder, encoder) for name, folder in made.items() if is_head(folder)}
        self._large = {name: LabelSet.open(folder, encoder) for name, folder in made.items() if not is_head(folder)}
        self._lock = threading.Lock()
        self._small = {kept.name: kept for kept in map(_read, sorted(self._folder.glob("*.json")))}

    def all(self) -> list[KeptLabels]:
        """By name."""
        made = [KeptLabels(name, len(found), "", None) for name, found in self._large.items()]
        made += [KeptLabels(name, len(head.classnames), "", None) for name, head in self._heads.items()]
        return sorted([*made, *self._small.values()], key=lambda kept: kept.name)

    def large(self, name: str | None) -> LabelSet | None:
        """A large set, None when there is none of this name."""
        return None if name is None else self._large.get(name)

    def head(self, name: str | None) -> Head | None:
        """A head, None when there is none of this name."""
        return None if name is None else self._heads.get(name)

    def get(self, name: str) -> KeptLabels:
        """A set.

        Raises:
            Problem: 404.
        """
        for kept in self.all():
            if kept.name == name:
                return kept
        raise _no_set(name)

    def put(self, name: str, labels: Sequence[str], templates: str, *, new: bool = False) -> KeptLabels:
        """Keep labels under a name, in place of those that were kept under it.

        Args:
            name: Letters, digits, ``_`` and ``-``.
            labels: At least one, no two alike.
            templates: The name of a set of templates.
            new: Refuse a name that is taken.

        Raises:
            UsageError: Labels or templates that cannot be meant.
            Problem: 400 for the name, 409 for one that is taken.
        """
        if not _NAME.fullmatch(name):
            raise Problem(400, "bad_name", "the name is no name", "up to 64 letters, digits, _ and -", "name")
        checked = check_labels(labels)
        get_templates(templates)
        kept = KeptLabels(name, len(checked), templates, tuple(checked))
        with self._lock:
            if self._is_fixed(name) or (new and name in self._small):
                raise Problem(409, "name_taken", f"there is a label set {name!r} already", "choose another", "name")
            if name not in self._small and len(self._small) >= MOST_SETS:
                raise Problem(400, "too_many_sets", f"there are {MOST_SETS} label sets already", "delete some")
            self._folder.mkdir(exist_ok=True)
            text = json.dumps({"name": name, "templates": templates, "labels": checked}, ensure_ascii=False)
            replace_file(self._file(name), lambda file: file.write(text.encode("utf-8", "backslashreplace")))
            self._small[name] = kept
        return kept

    def delete(self, name: str) -> None:
        """Forget a set that was made through the API.

        Raises:
            Problem: 404; 403 for one that was made before.
        """
        with self._lock:
            if self._is_fixed(name):
                raise Problem(403, "fixed_set", f"{name!r} was given when the server was started")
            if name not in self._small:
                raise _no_set(name)
            self._file(name).unlink(missing_ok=True)
            del self._small[name]

    def _is_fixed(self, name: str) -> bool:
        return name in self._large or name in self._heads

    def _file(self, name: str) -> Path:
        digest = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()  # names of any language fit on any disk
        return self._folder / f"{digest}.json"


def _read(path: Path) -> KeptLabels:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        labels = tuple(map(str, content["labels"]))
        return KeptLabels(str(content["name"]), len(labels), str(content["templates"]), labels)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"the label set {path} is damaged ({type(error).__name__})", hint="delete the file") from error


def _no_set(name: str) -> Problem:
    return Problem(404, "no_such_label_set", f"there is no label set {name[:64]!r}", "GET /v1/labels lists them")
