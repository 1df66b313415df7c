"""A folder of pictures for each class: ``folder/<class>/pictures``.

Place in the river: one folder → classes and `picture_files` → measuring, learning.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path

from nunbit.errors import UsageError
from nunbit.picture_files import find_images
from nunbit.types import Rejected


def class_folders(folder: Path, classnames: Mapping[str, str] | None = None, *, at_least: int = 2) -> dict[Path, str]:
    """Find the classes of ``folder/<class>/pictures``.

    Args:
        folder: Holds a folder a class. Hidden folders and loose files are no class.
        classnames: Label of every folder, by the folder's name. By default the name itself, with underscores and
            hyphens read as spaces. Folders with the same label are one class.
        at_least: So many classes.

    Returns:
        The folders with their labels, in the order of names.

    Raises:
        UsageError: Fewer classes, two that differ in capitals alone, or ``classnames`` that do not fit the
            folders.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder", hint="give a folder that holds a folder of pictures for each class")
    found = {path: tidy_label(path.name) for path in sorted(folder.iterdir()) if path.is_dir()}
    found = {path: name for path, name in found.items() if not name.startswith(".")}
    if classnames is None:
        labels = {path: name.replace("_", " ").replace("-", " ").strip() for path, name in found.items()}
    else:
        given = {tidy_label(name): label.strip() for name, label in classnames.items()}
        _check_fit(set(found.values()), given)
        labels = {path: given[name] for path, name in found.items()}
    if (classes := len(set(labels.values()))) < at_least:
        hint = "give a folder that holds a folder of pictures for each class"
        raise UsageError(
            f"{folder} holds {classes} class{'' if classes == 1 else 'es'}, expected {at_least} or more", hint=hint
        )
    by_case: dict[str, str] = {}
    for label in labels.values():
        if (other := by_case.setdefault(label.casefold(), label)) != label:
            message = f"the classes {other!r} and {label!r} in {folder} differ in capitals alone"
            raise UsageError(message, hint="put their pictures into one folder")
    return labels


def tidy_label(name: str) -> str:
    """A label without white space around it, its letters composed.

    Some systems store Korean names as single letters, which equal no name that somebody typed.
    """
    return unicodedata.normalize("NFC", name.strip())


def _check_fit(folders: set[str], classnames: Mapping[str, str]) -> None:
    if nameless := sorted(folders - classnames.keys()):
        raise UsageError(f"the class names have no label for the folder {nameless[0]!r}", hint="add it")
    if absent := sorted(classnames.keys() - folders):
        raise UsageError(f"the class names have a label for {absent[0]!r}, which is no folder", hint="remove it")


def class_pictures(folders: Mapping[Path, str]) -> Iterator[tuple[Path | Rejected, str]]:
    """Each picture in the folders or below, or why one was set aside, with its label."""
    for folder, label in folders.items():
        for path in find_images([folder]):
            yield path, label
