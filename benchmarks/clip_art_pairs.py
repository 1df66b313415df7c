"""Make picture-text pairs of Open Clip Art's drawings and their titles, from Debian's packages.

Usage: python benchmarks/clip_art_pairs.py --into FILE.jsonl [--clip-art /usr/share/openclipart]

Needs `apt-get install openclipart-png openclipart-svg` (0.18; public domain): the drawing is the PNG, the title stands
in the SVG of the same name. Left out and counted: titles that name no thing (a collection, a file, an author, with
digits, in no Latin letters, shared by more than three drawings), those of one author who wrote Italian, drawings
without the other file. A second run writes the same bytes.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

from nunbit.durable import replace_file

TITLE = "{http://purl.org/dc/elements/1.1/}title"
SHARED_BY = 3
_NO_THING = re.compile(r"[0-9_/\\.@]|clip ?art|collection|untitled|unnamed|template|icon|logo|\bby\b", re.I)
_WORDS = re.compile(r"[A-Za-z][A-Za-z' ,()-]{2,48}")


def main() -> None:
    """Make the pairs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, required=True, help="file to write, JSON lines")
    parser.add_argument("--clip-art", type=Path, default=Path("/usr/share/openclipart"), help="holds png/ and svg/")
    arguments = parser.parse_args()
    if not (arguments.clip_art / "svg").is_dir():
        parser.exit(2, f"there is no {arguments.clip_art}/svg\napt-get install openclipart-png openclipart-svg\n")
    rows, left_out = make_pairs(arguments.clip_art)
    arguments.into.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    replace_file(arguments.into, lambda file: file.write(lines.encode()))
    for name, count in ({"pairs": len(rows)} | left_out).items():
        print(f"{name:<24}{count:>7,}")


def make_pairs(clip_art: Path) -> tuple[list[dict[str, str]], dict[str, int]]:
    """Rows of pairs, and how many drawings were left out for which reason."""
    left_out: Counter[str] = Counter()
    titles: dict[Path, str] = {}
    for svg in sorted(clip_art.glob("svg/**/*.svg")):
        png = clip_art / "png" / svg.relative_to(clip_art / "svg").with_suffix(".png")
        title = read_title(svg)
        if not png.is_file():
            left_out["no PNG"] += 1
        elif title is None:
            left_out["no title"] += 1
        elif "_archi" in svg.stem:
            left_out["a title in Italian"] += 1
        elif _NO_THING.search(title) or not _WORDS.fullmatch(title):
            left_out["a title of no thing"] += 1
        else:
            titles[png] = title
    shared = Counter(title.lower() for title in titles.values())
    rows = [
        {"image": str(png), "text": title.lower(), "license": "public domain"}
        for png, title in titles.items()
        if shared[title.lower()] <= SHARED_BY
    ]
    left_out["a title of many"] = len(titles) - len(rows)
    return rows, dict(left_out)


def read_title(svg: Path) -> str | None:
    """Its title in Dublin Core, on one line; None where there is none, or the file is broken."""
    try:
        found = ElementTree.parse(svg).find(f".//{TITLE}")
    except ElementTree.ParseError:
        return None
    words = " ".join((found.text or "").split()) if found is not None else ""
    return words or None


if __name__ == "__main__":
    main()
