"""Saved web pages → pairs of a picture and the texts that its page gives it.

Place in the river: before the streams, which read what is written here. Three goes: pages → drafts of pairs; archives →
the pictures that the drafts name; drafts and pictures → files. Nothing is fetched, and the same pages give the same
bytes.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from nunbit.data.html_pages import Page, PagePicture, read_page
from nunbit.data.page_pictures import INLINE_BYTES, PictureStore, Stored, Unusable
from nunbit.data.places import read_small
from nunbit.data.saved_pages import SavedFile, find_saved, full_address, inline_bytes, local_path
from nunbit.data.warcs import DamagedArchive, UnusableContent, read_answers
from nunbit.durable import only_writer, replace_file, sync_file_system
from nunbit.errors import UsageError

PAGE_BYTES = 16 << 20
"""Pages with more bytes are set aside."""

MIN_SIDE = 32
"""Pixels; what is smaller, by its page or by itself, is an icon."""

_HTML = ("text/html", "application/xhtml+xml")
_SHOWN = 200  # characters of an address in the ledger

Progress: TypeAlias = Callable[[int, int], None]


@dataclass(slots=True)
class HarvestReport:
    """What a harvest gave.

    Attributes:
        pages: That were read.
        pairs: Pictures that are here, with texts.
        remote: Pictures with texts that would have to be fetched.
        reasons: How many pictures and pages were set aside for which reason.
    """

    pages: int = 0
    pairs: int = 0
    remote: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


def harvest(paths: Iterable[str], into: Path, *, progress: Progress = lambda done, total: None) -> HarvestReport:
    """Read saved pages and write what they say about their pictures.

    Args:
        paths: HTML files, WARC files (``.warc``, ``.warc.gz``), and folders of them.
        into: The folder to write: ``pairs.jsonl`` (image, texts, text_kinds, page, ...), ``images/`` with pictures out
            of archives and pages, ``remote.jsonl`` with pictures that were not saved, ``ledger.jsonl`` with what was
            set aside. Files of an earlier harvest are replaced; pictures stay.
        progress: Called with (files done, files in all); archives count twice.

    Raises:
        UsageError: A path leads nowhere, or to no page at all.
        StoreBusy: Another harvest writes to the folder.
    """
    files = list(find_saved(paths))
    if not files:
        raise UsageError("no saved page found", hint="give .html or .warc files, or folders of them")
    (into / "images").mkdir(parents=True, exist_ok=True)
    with only_writer(into / "writer.lock", str(into)), ExitStack() as stack:
        drafts, *outputs = (stack.enter_context(tempfile.TemporaryFile(dir=into)) for _ in range(4))
        run = _Harvest(PictureStore(into / "images"), *outputs)
        archives = [file for file in files if file.is_archive]
        total = len(files) + len(archives)
        for done, file in enumerate(files, start=1):
            for page in run.pages(file):
                _write(drafts, page)
            progress(done, total)
        for done, file in enumerate(archives, start=len(files) + 1):
            run.take_pictures(file)
            progress(done, total)
        drafts.seek(0)
        for line in drafts:
            run.finish(json.loads(line))
        sync_file_system(into)
        for name, output in zip(("pairs", "remote", "ledger"), outputs, strict=True):
            output.seek(0)
            replace_file(into / f"{name}.jsonl", partial(shutil.copyfileobj, output))
    return run.report


class _Harvest:
    """One run.

    Args:
        store: Where pictures go.
        pairs: Receives lines; so do the others.
        remote: Pictures that were not saved.
        ledger: What was set aside.
    """

    def __init__(self, store: PictureStore, pairs: BinaryIO, remote: BinaryIO, ledger: BinaryIO) -> None:
        self.report = HarvestReport()
        self._store = store
        self._pairs, self._remote, self._ledger = pairs, remote, ledger
        self._wanted = set[int]()  # hashes of addresses, of which there may be millions
        self._found: dict[str, Stored | Unusable] = {}  # by address

    def pages(self, file: SavedFile) -> Iterator[dict[str, Any]]:
        """The drafts of a file's pages, one for each page with pictures."""
        for name, page, address in self._read(file):
            self.report.pages += 1
            base = full_address(page.base, address) or address
            if page.more:
                self._reject(name, "too many pictures", f"{page.more:,} more than are read of one page")
            pictures = [draft for one in page.pictures if (draft := self._draft(one, page, file, base)) is not None]
            if pictures:
                license = full_address(page.license, base)
                yield {"page": address or name, "language": page.language, "license": license, "pictures": pictures}

    def take_pictures(self, archive: SavedFile) -> None:
        """Keep the pictures of an archive that pages have named."""
        try:
            for answer in read_answers(archive.path):
                address = full_address(answer.url, "")
                if answer.type in _HTML or hash(address) not in self._wanted:
                    continue
                if not isinstance(self._found.get(address), Stored):
                    self._found[address] = self._store.keep_answer(answer)
        except DamagedArchive:
            return  # told when its pages were read

    def finish(self, page: dict[str, Any]) -> None:
        """Write what came of a page's pictures; those that are the same are one."""
        pairs, remote = dict[str, dict[str, Any]](), dict[str, dict[str, Any]]()
        for draft in page["pictures"]:
            place, found = self._place(draft)
            url = place if "://" in place else ""
            about = {"texts": draft["texts"], "text_kinds": [], "page": page["page"], "url": url}
            about |= {"language": page["language"], "license": draft["license"] or page["license"]}
            if isinstance(found, Stored):
                size = {"width": found.width, "height": found.height}
                _merge(pairs, found.path, {"image": found.path, **about, **size})
            elif found is None:
                _merge(remote, place, about)
            else:
                self._reject(place, found.reason, f"{found.detail}, on {page['page']}")
        for rows, output in ((pairs, self._pairs), (remote, self._remote)):
            for row in rows.values():
                texts = row["texts"]
                row |= {"texts": list(texts), "text_kinds": list(texts.values())}
                _write(output, {name: value for name, value in row.items() if value != ""})
        self.report.pairs += len(pairs)
        self.report.remote += len(remote)

    def _read(self, file: SavedFile) -> Iterator[tuple[str, Page, str]]:
        """Name, content and address of each page in a file."""
        if not file.is_archive:
            data = read_small(file.path, PAGE_BYTES)
            if data is None:
                self._reject(file.path, "too many bytes", f"{file.size:,} bytes, the limit is {PAGE_BYTES:,}")
            elif file.path.encode("utf-8", "replace").decode() != file.path:
                self._reject(file.path, "name is not UTF-8", "rename it, or the folder that it is in")
            else:
                page = read_page(data)
                yield file.path, page, full_address(page.address, "")
            return
        try:
            for answer in read_answers(file.path):
                if answer.type in _HTML and answer.url:
                    try:
                        yield answer.url, read_page(answer.content(PAGE_BYTES), answer.charset), answer.url
                    except UnusableContent as error:
                        self._reject(answer.url, error.reason, error.detail)
        except DamagedArchive as error:
            self._reject(file.path, "damaged archive", str(error))

    def _draft(self, picture: PagePicture, page: Page, file: SavedFile, base: str) -> dict[str, Any] | None:
        """What is known of a picture without its archive, or None when it is set aside."""
        shown = next(iter(picture.addresses), "")[:_SHOWN]
        where = f"on {base or file.path}"
        sides = [side for side in (picture.width, picture.height) if side is not None]
        texts = _texts(picture, page)
        if any(side < MIN_SIDE for side in sides):
            self._reject(shown, "icon", f"{' x '.join(map(str, sides))} pixels {where}")
        elif picture.alt == "" and not (picture.caption or picture.title):
            self._reject(shown, "empty alt", f"an ornament, as its page says, {where}")
        elif not texts:
            self._reject(shown, "no text", where)
        else:
            places, problem = self._places(picture, file, base)
            if places:
                return {"places": places, "texts": texts, "license": full_address(picture.license, base)}
            self._reject(shown, problem.reason, f"{problem.detail} {where}")
        return None

    def _places(self, picture: PagePicture, file: SavedFile, base: str) -> tuple[list[str], Unusable]:
        """Where a picture may be: files, kept ones, addresses on the web; and why not, if there is none."""
        places: dict[str, None] = {}
        problem = Unusable("not saved", "it is not beside the page, and where it is on the web is not known")
        for address in picture.addresses:
            if address.startswith("data:"):
                found = self._inline(address)
                if isinstance(found, Unusable):
                    problem = found
                else:
                    places[found.path] = None
            elif not file.is_archive and (path := local_path(address, file)) is not None:
                places[path] = None
            elif full := full_address(address, base):
                places[full] = None
                self._wanted.add(hash(full))
        return list(places), problem

    def _inline(self, address: str) -> Stored | Unusable:
        data = inline_bytes(address, PAGE_BYTES)
        if data is None:
            return Unusable("inline, broken", "its data: address cannot be read")
        if len(data) < INLINE_BYTES:
            return Unusable("inline, too small", f"{len(data):,} bytes in a data: address")
        return self._store.keep(data, address[:40])

    def _place(self, draft: dict[str, Any]) -> tuple[str, Stored | Unusable | None]:
        """The first place where a picture is, and what it is; None for one that was not saved."""
        missing, unusable = "", list[tuple[str, Unusable]]()
        for place in draft["places"]:
            found = self._found.get(place) if "://" in place else self._store.look(place)
            if isinstance(found, Stored) and min(found.width, found.height) < MIN_SIDE:
                found = Unusable("icon", f"{found.width} x {found.height} pixels")
            if isinstance(found, Stored):
                return place, found
            if found is None:
                missing = missing or place
            else:
                unusable.append((place, found))
        return (missing, None) if missing else unusable[0]

    def _reject(self, path: str, reason: str, detail: str) -> None:
        self.report.reasons[reason] += 1
        path = path.encode("utf-8", "backslashreplace").decode()
        _write(self._ledger, {"path": path, "reason": reason, "detail": detail})


def _texts(picture: PagePicture, page: Page) -> dict[str, str]:
    """Every text that belongs to a picture, and its kind; those closest to the picture first."""
    found = [(picture.alt or "", "alt"), (picture.caption, "caption"), (picture.title, "title")]
    found += [(heading, "heading") for heading in picture.headings]
    texts: dict[str, str] = {}
    for text, kind in (*found, (page.title, "page title")):
        if text:
            texts.setdefault(text, kind)
    return texts


def _merge(rows: dict[str, dict[str, Any]], key: str, row: dict[str, Any]) -> None:
    """Add a row; of two about one picture the first stays, with the texts of both."""
    known = rows.setdefault(key, row)
    known["texts"] = known["texts"] | {text: kind for text, kind in row["texts"].items() if text not in known["texts"]}


def _write(file: BinaryIO, row: dict[str, Any]) -> None:
    file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
