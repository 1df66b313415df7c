"""HTML → the pictures on a page, and what the page says about each.

The page is read as a stream of tags, never as a tree, so that its depth costs nothing; texts, addresses and the number
of pictures have limits. Nothing is fetched.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from nunbit.errors import UsageError

PICTURES = 10_000
"""Pictures that are taken from one page."""

TEXT_LENGTH = 5_000
"""Characters; what is longer is no caption, and is passed over."""

_ADDRESS_LENGTH = 8_000
_SOURCES = 50  # candidates that one list of addresses may name
_HEAD = 4096  # where the page may name its encoding
_PIECE = 1 << 16
_DEPTH = 100  # figures in figures that are told apart
_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_INLINE = re.compile("a|abbr|b|bd[io]|cite|code|em|font|i|kbd|mark|q|s|small|span|strong|su[bp]|time|tt|u|var")
_LAZY = ("data-src", "data-original", "data-lazy-src", "data-lazy", "data-url")
_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]{1,40})""", re.IGNORECASE)
_SAVED_FROM = re.compile(r"\bsaved from url=\(\d+\)(\S+)|^\s*Page saved with SingleFile\s+url: (\S+)")
_ENCODINGS = re.compile(
    "utf-8|cp[0-9]+|iso8859-[0-9]+|euc_.*|big5.*|gb.*|shift_.*|koi8-.|mac-.*|johab|tis-620|iso2022_jp"
)
_AS_BROWSERS_DO = {  # names of encodings that mean more than they say
    "euc-kr": "cp949",
    "euc_kr": "cp949",
    "ks_c_5601-1987": "cp949",
    "ksc5601": "cp949",
    "ks_c_5601": "cp949",
    "windows-949": "cp949",
    "iso-8859-1": "cp1252",
    "latin1": "cp1252",
    "ascii": "cp1252",
    "us-ascii": "cp1252",
    "shift_jis": "cp932",
    "gb2312": "gb18030",
    "gbk": "gb18030",
}


@dataclass(slots=True)
class PagePicture:
    """A picture on a page.

    Attributes:
        addresses: Where it may be, the largest first; as the page writes them.
        alt: What stands in its place; None where the page does not say.
        title: Of the picture.
        caption: Of the figure around it.
        headings: The last heading before it, then the headings above that one.
        license: The address of a licence that its figure names.
        width: In pixels, as the page says; None where it does not.
        height: Likewise.
    """

    addresses: tuple[str, ...]
    alt: str | None
    title: str = ""
    caption: str = ""
    headings: tuple[str, ...] = ()
    license: str = ""
    width: int | None = None
    height: int | None = None


@dataclass(slots=True)
class Page:
    """What a page says.

    Attributes:
        title: Of the page.
        address: Where the page says it comes from; empty where it does not.
        base: What relative addresses start from, where the page says so.
        license: The address of the licence of the page.
        language: As the page names it, such as ``"ko"``.
        pictures: In the order of the page.
        more: Pictures beyond `PICTURES`.
    """

    title: str = ""
    address: str = ""
    base: str = ""
    license: str = ""
    language: str = ""
    pictures: list[PagePicture] = field(default_factory=list)
    more: int = 0


def read_page(data: bytes, charset: str = "") -> Page:
    """Read a page.

    Args:
        data: As it was saved or sent.
        charset: The encoding that its server named.

    Raises:
        UsageError: lxml is not installed.
    """
    try:
        from lxml import etree  # type: ignore[import-untyped]
    except ImportError as error:
        raise UsageError(
            "the package that reads HTML is not installed", hint='pip install "nunbit[harvest]"'
        ) from error
    content = decode_page(data, charset).replace("\0", "").encode("utf-8", "replace")
    reader = _PageReader()
    parser = etree.HTMLParser(target=reader, encoding="utf-8")
    for start in range(0, len(content), _PIECE):
        parser.feed(content[start : start + _PIECE])
    if content:
        parser.close()
    return reader.page


def decode_page(data: bytes, charset: str = "") -> str:
    """The text of a page: by its byte order mark, its server, its ``meta``, or by what fits."""
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ):
        if data.startswith(mark):
            return data[len(mark) :].decode(name, "replace")
    named = _CHARSET.search(data[:_HEAD])
    declared = [name for name in (charset, named[1].decode("ascii", "replace") if named else "") if _known(name)]
    # Browsers save in UTF-8 and may leave the old name; pages that name nothing and are no UTF-8 are old.
    names = [_known(name) for name in declared] + ["utf-8"] + ([] if declared else ["euc_kr"])
    for name in names:
        try:
            return data.decode(name)
        except UnicodeDecodeError:
            continue
    return data.decode(names[0] if declared else "cp1252", "replace")


def _known(name: str) -> str:
    """Python's name of an encoding that pages are written in; empty for any other."""
    name = _AS_BROWSERS_DO.get(name.lower(), name)
    try:
        name = codecs.lookup(name).name
    except (LookupError, ValueError):
        return ""
    return name if _ENCODINGS.fullmatch(name) else ""


def candidates(value: str) -> list[tuple[float, str]]:
    """``srcset`` → width in pixels or density, and address, of each picture that it names."""
    found, address = list[tuple[float, str]](), ""
    for word in value[: _SOURCES * _ADDRESS_LENGTH].split():
        if address:  # this is its size; where a comma follows without a space, the next address too
            size, _, word = word.partition(",")
            found.append((_number(size) or 0.0, address))
            address = ""
        if word.endswith(","):
            found.append((1.0, word.rstrip(",")))
        else:
            address = word
    if address:
        found.append((1.0, address))
    return [(size, address) for size, address in found if address][:_SOURCES]


def _number(text: str) -> float | None:
    """A number that a page gives; None for what is none."""
    match = re.match(r"\s*(\d{1,9}(?:\.\d{1,9})?)", text)
    return float(match[1]) if match else None


def single_spaced(text: str) -> str:
    """Without white space around, and with single spaces within."""
    return " ".join(text.split())


class _Words:
    """A text that is being collected."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._length = 0

    def add(self, text: str) -> None:
        self._length += len(text)
        if self._length <= 2 * TEXT_LENGTH:  # white space is yet to go
            self._pieces.append(text)

    def text(self) -> str:
        text = single_spaced("".join(self._pieces))
        return text if self._length <= 2 * TEXT_LENGTH and len(text) <= TEXT_LENGTH else ""


@dataclass(slots=True)
class _Figure:
    first: int  # its first picture
    caption: _Words | None = None
    license: str = ""


class _PageReader:
    """Takes tags as the parser finds them."""

    def __init__(self) -> None:
        self.page = Page()
        self._figures: list[_Figure] = []
        self._too_deep = 0
        self._headings: dict[int, str] = {}
        self._collecting: dict[str, _Words] = {}  # by tag: title, figcaption, a heading
        self._sources: list[tuple[float, str]] = []  # of the <picture> around
        self._in_picture = False
        self._silent = 0  # in script or style

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """A tag opens."""
        if not _INLINE.fullmatch(tag):
            self.data(" ")
        match tag:
            case "img" | "amp-img":
                self._picture(attributes)
            case "picture":
                self._sources, self._in_picture = [], True
            case "source" if self._in_picture:
                for name in ("srcset", "data-srcset"):
                    self._sources += candidates(attributes.get(name, ""))
            case "figure":
                self._open_figure()
            case "figcaption" if self._figures:
                self._collecting[tag] = _Words()
            case "title" if not self.page.title:
                self._collecting[tag] = _Words()
            case "h1" | "h2" | "h3" | "h4" | "h5" | "h6":
                self._collecting[tag] = _Words()
            case "script" | "style":
                self._silent += 1
            case "a" | "link":
                self._link(attributes)
            case "base" if not self.page.base:
                self.page.base = _address(attributes.get("href"))
            case "html" if not self.page.language:
                self.page.language = attributes.get("lang", "")[:40].strip()

    def end(self, tag: str) -> None:
        """A tag closes."""
        if tag in ("script", "style"):
            self._silent = max(0, self._silent - 1)
        elif tag == "picture":
            self._in_picture, self._sources = False, []
        elif tag == "figure":
            self._close_figure()
        elif words := self._collecting.pop(tag, None):
            if tag == "title":
                self.page.title = words.text()
            elif tag == "figcaption" and self._figures:
                self._figures[-1].caption = self._figures[-1].caption or words
            elif tag in _HEADINGS:
                self._heading(int(tag[1]), words.text())

    def data(self, text: str) -> None:
        """Words between tags."""
        if not self._silent:
            for words in self._collecting.values():
                words.add(text)

    def comment(self, text: str) -> None:
        """Browsers write where a page comes from."""
        if not self.page.address and (match := _SAVED_FROM.search(text[:_ADDRESS_LENGTH])):
            self.page.address = _address(match[1] or match[2])

    def close(self) -> None:
        """Nothing more comes; figures that nobody closed are closed."""
        while self._figures:
            self._close_figure()

    def _picture(self, attributes: Mapping[str, str]) -> None:
        if len(self.page.pictures) >= PICTURES:
            self.page.more += 1
            return
        alt = attributes.get("alt")
        self.page.pictures.append(
            PagePicture(
                tuple(dict.fromkeys(self._addresses(attributes))),
                None if alt is None else _short(alt),
                title=_short(attributes.get("title", "")),
                headings=tuple(text for _, text in sorted(self._headings.items(), reverse=True)),
                width=_pixels(attributes.get("width", "")),
                height=_pixels(attributes.get("height", "")),
            )
        )

    def _addresses(self, attributes: Mapping[str, str]) -> Iterator[str]:
        """Where a picture may be. What is loaded late comes before ``src``, which then holds a placeholder."""
        several = list(self._sources)
        for name in ("srcset", "data-srcset", "data-lazy-srcset"):
            several += candidates(attributes.get(name, ""))
        yield from (_address(address) for _, address in sorted(several, key=lambda pair: -pair[0]) if _address(address))
        for name in (*_LAZY, "src"):
            value = attributes.get(name, "").strip()
            if value.startswith("data:") or (value := _address(value)):
                yield value

    def _open_figure(self) -> None:
        if len(self._figures) >= _DEPTH:
            self._too_deep += 1
        else:
            self._figures.append(_Figure(len(self.page.pictures)))

    def _close_figure(self) -> None:
        if self._too_deep:
            self._too_deep -= 1
            return
        if not self._figures:
            return
        figure = self._figures.pop()
        caption = figure.caption.text() if figure.caption else ""
        for picture in self.page.pictures[figure.first :]:
            picture.caption = picture.caption or caption
            picture.license = picture.license or figure.license

    def _heading(self, level: int, text: str) -> None:
        self._headings = {above: words for above, words in self._headings.items() if above < level}
        if text:
            self._headings[level] = text

    def _link(self, attributes: Mapping[str, str]) -> None:
        rel, address = attributes.get("rel", "").lower().split(), _address(attributes.get("href"))
        if "license" in rel and address:
            if self._figures:
                self._figures[-1].license = self._figures[-1].license or address
            else:
                self.page.license = self.page.license or address
        elif "canonical" in rel and not self.page.address:
            self.page.address = address


def _address(value: str | None) -> str:
    """An address of reasonable length, or nothing."""
    value = (value or "").strip()
    return value if len(value) <= _ADDRESS_LENGTH and not value.startswith("data:") else ""


def _short(text: str) -> str:
    text = single_spaced(text[: 2 * TEXT_LENGTH])
    return text if len(text) <= TEXT_LENGTH else ""


def _pixels(text: str) -> int | None:
    """A width or height that is given in pixels."""
    number = None if text.strip().endswith("%") else _number(text)
    return None if number is None else int(number)
