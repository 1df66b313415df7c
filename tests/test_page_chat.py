"""Asking about a picture on the page, in a real browser; what answers is a fake that waits to be allowed each word."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from PIL import Image

from browser import SPY, Page, axe_script, skip_without_browser, start_over
from fake_talker import FakeTalker
from index_fakes import make_encoder, picture
from nunbit.index import Index
from nunbit.serve.settings import Settings
from serving import serving

pytestmark = pytest.mark.browser
BUSY = "return talk.running !== null"


@pytest.fixture(scope="module")
def talker() -> FakeTalker:
    return FakeTalker()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, talker: FakeTalker) -> Iterator[Page]:
    skip_without_browser()
    folder = tmp_path_factory.mktemp("page")
    for number in range(10):
        picture(folder / "album" / f"{number}.png", number, (120 + number, 90))
    with Index.open(folder / "x.nunbit", make_encoder()) as index:
        index.add([folder / "album"])
    with serving(Settings(folder / "x.nunbit", root=folder / "album", port=0), talker=talker) as client:
        page = Page(client.address, folder / "profile")
        try:
            yield page
        finally:
            page.close()


@pytest.fixture
def page(browser: Page, talker: FakeTalker) -> Iterator[Page]:
    start_over(browser)
    yield browser
    browser.js("panel.close()")
    talker.allowed.release(1000)
    browser.wait(lambda: talker.at_once == 0)
    forbid(talker)
    assert browser.problems() == []


def forbid(talker: FakeTalker) -> None:
    """Take back what was allowed and not used."""
    while talker.allowed.acquire(blocking=False):
        pass


def ask(page: Page, words: str) -> None:
    page.type(".talk input", f"{words}\n")
    page.wait(lambda: page.js(BUSY))


def test_an_answer_comes_in_pieces_and_the_next_question_knows_it(page: Page, talker: FakeTalker) -> None:
    page.open_picture("3.png")
    ask(page, "What is it?")
    talker.allowed.release(2)
    page.wait(lambda: "What is it?0 What is it?1" in page.text(".talk .answer"))
    assert page.js(BUSY)
    talker.allowed.release(1000)
    page.wait(lambda: not page.js(BUSY))
    assert "The answer was cut here." in page.text(".talk .answer")
    forbid(talker)
    ask(page, "정말?")
    talker.allowed.release(1000)
    page.wait(lambda: "정말?1" in page.text(".talk .log > :last-child"))
    question, answer, again = talker.conversations[-1]
    assert isinstance(question.parts[0], Image.Image) and question.parts[0].size == (123, 90)
    assert (question.parts[1], again.parts) == ("What is it?", ("정말?",))
    assert str(answer.parts[0]).startswith("What is it?0 What is it?1 ")


def test_the_keyboard_asks_and_stops(page: Page, talker: FakeTalker) -> None:
    page.open_picture("4.png")
    page.js("document.querySelector('.talk input').focus()")
    page.keys("1 or 2?\n")  # and no view changes by that
    page.wait(lambda: page.js(BUSY))
    talker.allowed.release(1)
    page.wait(lambda: "1 or 2?0" in page.text(".talk .answer"))
    page.keys("\t")
    assert page.focused() == "Stop"
    page.keys("\n")
    page.wait(lambda: not page.js(BUSY))
    assert "Stopped." in page.text(".talk .answer")
    assert page.focused() == "Ask about this picture"
    talker.allowed.release(1)
    page.wait(lambda: talker.at_once == 0)
    assert page.js("return talk.messages.at(-1).content.trim()") == "1 or 2?0"


def test_another_picture_is_another_conversation(page: Page, talker: FakeTalker) -> None:
    page.open_picture("5.png")
    ask(page, "Hm?")
    page.js("panel.render()")  # as when a name or the language changes
    talker.allowed.release(1)
    page.wait(lambda: "Hm?0" in page.text(".talk .answer"))
    page.open_picture("6.png")
    assert page.text(".talk .log") == "" and not page.js(BUSY)
    talker.allowed.release(1)
    page.wait(lambda: talker.at_once == 0)


def test_what_goes_wrong_is_said_where_it_was_asked(page: Page) -> None:
    event = '{"error": {"message": "the model left"}}'
    page.js("fakes.push([/completions/, () => new Response(`data: ${arguments[0]}\\n\\n`)])", event)
    page.open_picture("7.png")
    page.type(".talk input", "Hm?\n")
    page.wait(lambda: "The server failed. the model left" in page.text(".talk .answer"))
    assert page.js("return document.querySelector('.talk input').value") == "Hm?"
    page.js("fakes.length = 0; fakes.push([/completions/, () => failed(413)])")
    page.type(".talk input", "\n")
    page.wait(lambda: "That is too large. made up" in page.text(".talk .log > :last-child"))


@pytest.mark.parametrize(("language", "theme", "width"), [("en", "light", 1280), ("ko", "dark", 390)])
def test_it_is_accessible(page: Page, talker: FakeTalker, language: str, theme: str, width: int) -> None:
    page.size(width, 800)
    page.theme(theme)
    page.open(language=language, before=SPY)
    page.wait(lambda: page.js("return wall.list?.total") == 10)
    page.open_picture("8.png")
    title = {"en": "Ask about this picture", "ko": "이 사진에 대해 물어보기"}[language]
    assert page.text(".talk h3") == title
    ask(page, "뭐야?")
    talker.allowed.release(3)
    page.wait(lambda: "뭐야?2" in page.text(".talk .answer"))
    assert page.axe(axe_script()) == []


def test_where_nobody_answers_nothing_is_asked(page: Page) -> None:
    page.js("session.chat = false")
    page.open_picture("9.png")
    assert page.all(".talk") == []
