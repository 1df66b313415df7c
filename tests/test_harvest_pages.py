"""What a page says of its pictures, tag by tag."""

from __future__ import annotations

from pathlib import Path

from nunbit.data.html_pages import PagePicture, read_page
from nunbit.data.saved_pages import find_saved, full_address


def test_headings_are_those_above() -> None:
    page = read_page(b"<h1>A</h1><h2>B</h2><h3>C</h3><img src=1><h2>D</h2><img src=2><h4></h4><img src=3>")
    assert [picture.headings for picture in page.pictures] == [("C", "B", "A"), ("D", "A"), ("D", "A")]


def test_figures_in_figures_keep_their_captions() -> None:
    page = read_page(
        """<figure><img src=1><figure><img src=2><figcaption>안</figcaption>
        <a rel="nofollow license" href="/cc">cc</a></figure><figcaption>밖 <script>no()</script><style>no</style>글
        </figcaption></figure><img src=3><a rel=license href=/page>cc</a>""".encode()
    )
    assert [(picture.caption, picture.license) for picture in page.pictures] == [("밖 글", ""), ("안", "/cc"), ("", "")]
    assert page.license == "/page"


def test_figures_that_nobody_closes_are_closed_and_too_deep_ones_count_as_the_last() -> None:
    (picture,) = read_page(b"<figure><img src=1 alt><figcaption>open").pictures
    assert picture == PagePicture(("1",), "", caption="open")
    deep = b"<figure>" * 101 + b"<figcaption>deep</figcaption></figure>" + b"<img src=1>" + b"</figure>" * 100
    (picture,) = read_page(deep + b"<figcaption>stray</figcaption>").pictures
    assert picture.caption == "deep"


def test_lazy_pictures_and_sizes() -> None:
    (picture,) = read_page(
        b"<picture><source srcset='l.webp 2x'><source data-srcset='s.webp'><img src=dot.gif data-src=real.jpg"
        b" srcset='m.jpg 640w, s.jpg 320w' width=100% height='48.5px'></picture>"
    ).pictures
    assert picture.addresses == ("m.jpg", "s.jpg", "l.webp", "s.webp", "real.jpg", "dot.gif")
    assert (picture.width, picture.height) == (None, 48)
    assert len(read_page(b"<video><source srcset=a></video><img src=b>").pictures[0].addresses) == 1


def test_where_a_page_comes_from() -> None:
    saved = b"<!-- saved from url=(0017)http://a.example/ --><link rel=canonical href=http://b.example/>"
    assert read_page(saved).address == "http://a.example/"
    assert read_page(saved[saved.index(b"<link") :]).address == "http://b.example/"
    single = b"<!--\n Page saved with SingleFile \n url: https://c.example/ \n saved date: today\n-->"
    assert read_page(single).address == "https://c.example/"


def test_addresses_have_one_form() -> None:
    assert full_address("//A.Example/가 나?q=다#e", "https://b.example/") == (
        "https://a.example/%EA%B0%80%20%EB%82%98?q=%EB%8B%A4"
    )
    assert full_address("x%20y", "http://a.example") == "http://a.example/x%20y"
    assert full_address("x.png", "") == full_address("javascript:x", "http://a.example/") == ""


def test_every_page_is_found_once(tmp_path: Path) -> None:
    for name in ("b.HTML", "a/c.htm", "a/d.xhtml", "a/x.txt", ".hidden/e.html", "z.warc.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "again.html").symlink_to(tmp_path / "b.HTML")
    found = list(find_saved([str(tmp_path / "a" / "c.htm"), str(tmp_path)]))
    names = [Path(file.path).name for file in found]
    assert sorted(names) == sorted({"c.htm", "d.xhtml", "again.html", "z.warc.gz"})
    assert [file.is_archive for file in found] == [name == "z.warc.gz" for name in names]
    assert [file.root for file in found] == [str(tmp_path / "a")] + [str(tmp_path)] * 3
