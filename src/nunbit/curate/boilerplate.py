"""Texts that say nothing about a picture: file names, URLs, dates, numbers, and what pages write beside any picture."""

from __future__ import annotations

import re
from collections.abc import Iterable

from nunbit.curate.words import plain

_ENDING = r"\.(?:jpe?g|jfif|png|gif|webp|tiff?|avif|bmp|svg|heic|psd|pdf|mp4|mov)"
_NUMBERED = (
    "img|dsc[fn]?|dscn|pxl|mvimg|vid|image|photo|picture|pic|screenshot|screen shot|scan|untitled|figure|fig"
    "|kakaotalk|kakaotalk photo|이미지|사진|스크린샷|캡처|제목 없음|무제|그림"
)
_DOMAIN = r"(?:[\w-]+\.)+(?:com|net|org|io|kr|jp|cn|de|fr|uk)"
_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sept?|oct|nov|dec)[a-z]*\.?"
_DAY = r"\d{1,2}(?:st|nd|rd|th)?"

_KINDS = {
    "a file name": re.compile(rf".*\S{_ENDING}", re.DOTALL),
    "a numbered name": re.compile(rf"(?:{_NUMBERED})[ _\-–()#.:]*\d[\d _\-–()#.:apm]*"),
    "an address": re.compile(rf"(?:(?:https?|ftp)://|www\.)\S+|[\w.+-]+@{_DOMAIN}|{_DOMAIN}(?:/\S*)?"),
    "a date": re.compile(
        rf"(?:[a-z]{{3,9}},? )?(?:{_MONTH} {_DAY}(?:,? \d{{4}})?|{_DAY} {_MONTH}(?:,? \d{{4}})?|{_MONTH},? \d{{4}}"
        r"|\d{2,4} ?년(?: ?\d{1,2} ?월)?(?: ?\d{1,2} ?일)?|\d{1,2} ?월(?: ?\d{1,2} ?일)?)"
    ),
    "no letters": re.compile(r"[\W\d_]*"),
}

_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")

_STOCK = """
image|images|img|picture|pictures|pic|photo|photos|photograph|thumbnail|thumb|avatar|profile picture|profile photo
logo|our logo|site logo|company logo|icon|icons|banner|placeholder|spacer|none|null|undefined|nan|n/a|alt|alt text
untitled|no title|title|caption|no caption|no description|image may contain|no photo description available
click here|click to enlarge|click image to enlarge|click to zoom|enlarge|zoom|view larger|full size|view full size
read more|learn more|see more|view more|show more|details|view details|next|previous|prev|submit|loading|close
download|share|tweet|follow us|facebook|twitter|instagram|youtube|linkedin|pinterest|rss|advertisement|ad|sponsored
image not available|no image|no image available|image coming soon|product image|main image|featured image|cover image
header image|background image|hero image
이미지|그림|사진|로고|아이콘|배너|썸네일|섬네일|프로필|프로필 사진|대표 이미지|본문 이미지|첨부 이미지|상품 이미지
배경 이미지|목록|광고|바로가기|본문 바로가기|맨 위로
이미지 없음|이미지 준비중|이미지 준비 중|제목 없음|무제|설명 없음|캡션|여기를 클릭|여기를 클릭하세요|클릭|클릭하세요
크게 보기|확대|확대 보기|자세히|자세히 보기|더보기|더 보기|전체보기|전체 보기|다운로드|공유|공유하기|좋아요|닫기
이전|다음
"""


class Boilerplate:
    """Knows boilerplate.

    Args:
        more: Further texts that say nothing, compared as whole texts, without regard to case.
    """

    def __init__(self, more: Iterable[str] = ()) -> None:
        stock = (text for line in _STOCK.split("\n") for text in line.split("|"))
        self._stock = {_bare(text) for text in (*stock, *more)} - {""}

    def find(self, text: str) -> str:
        """Say what kind of boilerplate a text is; empty when it is none."""
        given = plain(_TAG.sub(" ", text))
        kind = next((kind for kind, form in _KINDS.items() if form.fullmatch(given)), "")
        return kind or ("a stock phrase" if _bare(given) in self._stock else "")


def _bare(text: str) -> str:
    """The plain text without punctuation at its ends."""
    return re.sub(r"^[\W_]+|[\W_]+$", "", plain(text))
