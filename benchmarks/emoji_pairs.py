"""Make picture-text pairs of emoji: several artists' drawings, with names in English and Korean, from npm packages.

Usage: python benchmarks/emoji_pairs.py --into DIR [--packages FOLDER]

A small proof that training works: some artists' drawings teach a model, those of another, never seen, are to be named.

Needs resvg-py, which draws SVG (`pip install resvg-py==0.5.0`), and, without ``--packages``, npm and the network: the
packages are then fetched into ``DIR/packages``. Each is compared with its sha512 in ``emoji_sources.py``.

Which emoji: every entry of emojibase-data but skin tones (which it keeps inside of an entry), components (hair, skin:
its group 2) and the 26 regional indicators (no group). That is 1,914, and so many labels to choose from; a style has
drawings of most of them. Which style is trained on, chosen by, or only tested with is written in `emoji_sources.py`.

What is written to DIR: ``train.jsonl``, ``validation.jsonl`` and ``test.jsonl``, a drawing a line; ``concepts.jsonl``
with labels and tags, ``labels-en.txt`` and ``labels-ko.txt`` in the same order; ``drawings/STYLE/HEX.png``, at most
72 x 72 with transparency; ``set_aside.jsonl``; ``sources.json`` and ``README.md`` with licences. A second run writes
the same bytes.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import subprocess
import tarfile
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nunbit.console import track
from nunbit.durable import replace_file
from nunbit.errors import UsageError
from nunbit.types import Rejected
from PIL import Image
from resvg_py import svg_to_bytes

from emoji_sources import LABELS, PACKAGES, STYLES, Style

SIDE = 72
"""Pixels; what is larger is scaled down to it, and vectors are drawn at it."""

COMPONENTS = 2
"""Emojibase's group of hair and skin, which are no emoji by themselves."""

MEMBER_BYTES = 1 << 26
LANGUAGES = ("en", "ko")
PARTS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Concept:
    """One emoji: its code points as emojibase writes them, in lower case, and its label and tags by language."""

    concept: str
    emoji: str
    version: float
    labels: Mapping[str, str]
    tags: Mapping[str, tuple[str, ...]]

    @property
    def key(self) -> tuple[int, ...]:
        """Code points without the variation selector, which some packages write and others leave out."""
        return key_of(self.concept)

    @property
    def is_place(self) -> bool:
        """It is the flag of a country or a region."""
        return 0x1F1E6 <= self.key[0] <= 0x1F1FF or self.key[-1] == 0xE007F

    def captions(self) -> tuple[list[str], list[str]]:
        """Texts of its pairs, and the language of each: label, and label with tags, in each language."""
        texts, languages = [], []
        for language in LANGUAGES:
            label, tags = self.labels[language], ", ".join(self.tags[language])
            for text in (label, f"{label}: {tags}") if tags else (label,):
                texts.append(text)
                languages.append(language)
        return texts, languages


@dataclass(slots=True)
class Pairs:
    """What was made of all styles: rows by part, and what was set aside."""

    rows: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {part: [] for part in PARTS})
    rejected: list[Rejected] = field(default_factory=list)


def main() -> None:
    """Make the pairs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, required=True, help="folder to write")
    parser.add_argument("--packages", type=Path, help="folder that holds the packages; nothing is fetched")
    arguments = parser.parse_args()
    try:
        counts = make_pairs(arguments.into, find_packages(arguments.into, arguments.packages))
    except UsageError as error:
        parser.exit(error.exit_code, f"{error.message}\n{error.hint}\n")
    for name, count in counts.items():
        print(f"{name:<24}{count:>7,}")


def find_packages(into: Path, given: Path | None) -> dict[str, Path]:
    """Find every package, or fetch it, and compare its sha512.

    Args:
        into: Fetched ones are kept in its folder ``packages``.
        given: A folder that holds all of them; None to fetch.

    Returns:
        Name and version → archive.

    Raises:
        UsageError: One is missing, cannot be fetched, or is not the one that is meant.
    """
    folder = given or into / "packages"
    found = {}
    for package, sha512 in PACKAGES.items():
        name, _, version = package.rpartition("@")
        path = folder / f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"
        if not path.is_file():
            if given is not None:
                raise UsageError(f"there is no {path}", hint=f"npm pack {package} --pack-destination {given}")
            _fetch(package, folder)
        if base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode() != sha512:
            raise UsageError(
                f"{path} is not the {package} that is meant: its sha512 differs", hint="remove it and fetch it again"
            )
        found[package] = path
    return found


def _fetch(package: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    command = ["npm", "pack", package, "--silent", "--pack-destination", str(folder)]
    try:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UsageError(
            f"{package} cannot be fetched: {error}", hint="npm and the network are needed; or give --packages"
        ) from error


def make_pairs(into: Path, packages: Mapping[str, Path]) -> dict[str, int]:
    """Write everything.

    Args:
        into: The folder, made when it is not there.
        packages: As `find_packages` gives them.

    Returns:
        How many rows or drawings each name stands for: the parts, then the styles, then what was set aside.
    """
    into.mkdir(parents=True, exist_ok=True)
    concepts = read_concepts(packages[LABELS])
    pairs = Pairs()
    for style in track(STYLES, label="styles", total=len(STYLES)):
        _add_style(pairs, style, packages[style.package], concepts, into)
    for part, rows in pairs.rows.items():
        _write_lines(into / f"{part}.jsonl", rows)
    _write_lines(into / "set_aside.jsonl", [asdict(one) for one in pairs.rejected])
    _write_lines(into / "concepts.jsonl", [asdict(concept) for concept in concepts])
    for language in LANGUAGES:
        _write(into / f"labels-{language}.txt", "".join(f"{concept.labels[language]}\n" for concept in concepts))
    styles = Counter(row["style"] for rows in pairs.rows.values() for row in rows)
    sources = [asdict(style) | {"sha512": PACKAGES[style.package], "drawings": styles[style.name]} for style in STYLES]
    labels = {"package": LABELS, "license": "MIT", "sha512": PACKAGES[LABELS], "concepts": len(concepts)}
    _write(into / "sources.json", json.dumps({"labels": labels, "styles": sources}, indent=1) + "\n")
    _write(into / "README.md", _readme(sources, len(concepts)))
    parts = {part: len(rows) for part, rows in pairs.rows.items()}
    return {"concepts": len(concepts)} | parts | dict(styles) | {"set aside": len(pairs.rejected)}


def read_concepts(archive: Path) -> list[Concept]:
    """All base emoji, in emojibase's order."""
    wanted = {f"package/{language}/data.json": language for language in LANGUAGES}
    read = {wanted[name]: json.loads(data) for name, data in _members(archive, "package/") if name in wanted}
    entries = {language: {entry["hexcode"]: entry for entry in read[language]} for language in LANGUAGES}
    kept = [entry for entry in read["en"] if entry.get("group", COMPONENTS) != COMPONENTS]
    return [
        Concept(
            entry["hexcode"].lower(),
            entry["emoji"],
            entry["version"],
            {language: _tidy(entries[language][entry["hexcode"]]["label"]) for language in LANGUAGES},
            {
                language: tuple(_tidy(tag) for tag in entries[language][entry["hexcode"]].get("tags", ()))
                for language in LANGUAGES
            },
        )
        for entry in kept
    ]


def key_of(name: str) -> tuple[int, ...]:
    """Code points of a file name such as ``1F441-FE0F-200D-1F5E8``, without variation selectors; empty for others."""
    try:
        return tuple(point for part in name.split("-") if (point := int(part, 16)) != 0xFE0F)
    except ValueError:
        return ()


def _tidy(text: str) -> str:
    return unicodedata.normalize("NFC", " ".join(text.split()))


def _members(archive: Path, folder: str) -> Iterator[tuple[str, bytes]]:
    """Regular files of an npm package whose names start so; nothing is unpacked."""
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            if member.isreg() and member.name.startswith(folder) and member.size <= MEMBER_BYTES:
                file = tar.extractfile(member)
                assert file is not None
                yield member.name, file.read()


def _add_style(pairs: Pairs, style: Style, archive: Path, concepts: list[Concept], into: Path) -> None:
    """Write a style's drawings, and add their rows in the order of concepts."""
    by_key = {concept.key: concept for concept in concepts if style.flags or not concept.is_place}
    folder = into / "drawings" / style.name
    folder.mkdir(parents=True, exist_ok=True)
    drawn = set()
    for name, key, data in _drawings(style, archive, concepts):
        if key not in by_key:
            continue
        try:
            drawing = as_drawing(data, svg=style.ending in (".svg", ".json"))
        except Exception as error:  # whatever Pillow and resvg raise for a damaged file
            pairs.rejected.append(Rejected(f"{style.name}/{name}", "damaged", str(error)))
            continue
        if drawing.getextrema()[3][1] == 0:
            pairs.rejected.append(Rejected(f"{style.name}/{name}", "blank", "nothing is drawn"))
            continue
        drawing.save(folder / f"{by_key[key].concept}.png", optimize=True)
        drawn.add(key)
    pairs.rows[style.part] += [_row(style, concept) for key, concept in by_key.items() if key in drawn]


def _row(style: Style, concept: Concept) -> dict[str, Any]:
    texts, languages = concept.captions()
    return {
        "image": f"drawings/{style.name}/{concept.concept}.png",
        "texts": texts,
        "languages": languages,
        "concept": concept.concept,
        "style": style.name,
        "license": style.license,
    }


def _drawings(style: Style, archive: Path, concepts: list[Concept]) -> Iterator[tuple[str, tuple[int, ...], bytes]]:
    """A style's drawings: name, code points, and the bytes of a picture or an SVG."""
    if style.ending == ".json":
        yield from _icons(archive, concepts)
        return
    for path, data in _members(archive, style.members):
        name = path.removeprefix(style.members)
        yield name, key_of(name.removesuffix(style.ending)), data


def _icons(archive: Path, concepts: list[Concept]) -> Iterator[tuple[str, tuple[int, ...], bytes]]:
    """Drawings of an Iconify set: by the code points it names, or by what they are called."""
    members = dict(_members(archive, "package/"))
    icons, points = json.loads(members["package/icons.json"]), json.loads(members["package/chars.json"])
    keys = _keys_by_name(concepts)
    known = {icon: key_of(name) for name, icon in points.items()}
    for name, icon in icons["icons"].items():
        width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
        box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}">{icon["body"]}</svg>'
        first = name.removesuffix("-1")  # of several drawings of one thing
        yield name, known.get(name) or keys.get(_letters(name)) or keys.get(_letters(first), ()), svg.encode()


def _keys_by_name(concepts: list[Concept]) -> dict[str, tuple[int, ...]]:
    """Exactly as emojibase or Unicode calls an emoji, but for punctuation; flags also as sets of flags call them."""
    keys: dict[str, tuple[int, ...]] = {}
    for concept in concepts:
        label = concept.labels["en"]
        keys.setdefault(_letters(label), concept.key)
        if len(concept.key) == 1:
            keys.setdefault(_letters(unicodedata.name(chr(concept.key[0]), "")), concept.key)
        if concept.is_place:
            keys.setdefault(_letters(label.replace("flag:", "flag for")), concept.key)
        if 0x1F1E6 <= concept.key[0] <= 0x1F1FF:
            region = "".join(chr(point - 0x1F1E6 + ord("a")) for point in concept.key)
            keys |= {region: concept.key, f"{region}4x3": concept.key}
    return keys


def _letters(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def as_drawing(data: bytes, *, svg: bool) -> Image.Image:
    """Decode or draw one, to a square RGBA picture of at most `SIDE` pixels a side."""
    if svg:
        data = svg_to_bytes(svg_string=data.decode(), width=SIDE, height=SIDE, skip_system_fonts=True)
    with Image.open(io.BytesIO(data)) as opened:
        picture = opened.convert("RGBA")
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    side = max(picture.size)
    square = Image.new("RGBA", (side, side))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square


def _readme(sources: list[dict[str, Any]], concepts: int) -> str:
    rows = [
        f"| {one['part']} | {one['name']} | {one['drawings']:,} | {one['by']} | {one['license']} | {one['package']} |\n"
        for one in sources
    ]
    return (
        f"# Pairs of emoji\n\nDrawings of {concepts:,} emoji with names in English and Korean, made by nunbit's "
        "`benchmarks/emoji_pairs.py`, which says which emoji these are. Each drawing keeps the licence of its artist; "
        f"labels and tags are those of {LABELS} (MIT), after Unicode's CLDR.\n\n"
        "| part | style | drawings | by | licence | package |\n|---|---|---|---|---|---|\n" + "".join(rows)
    )


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    _write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _write(path: Path, text: str) -> None:
    replace_file(path, lambda file: file.write(text.encode()))


if __name__ == "__main__":
    main()
