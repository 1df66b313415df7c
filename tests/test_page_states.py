"""The page when things go wrong, without a mouse, for screen readers, on a narrow screen, and with 100,000 pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from browser import COUNT, SPY, Page, axe_script, served_page, start_over
from nunbit.encode import Encoder

ENTER, ESCAPE, TAB, RIGHT, DOWN, END = "\ue007", "\ue00c", "\ue004", "\ue014", "\ue015", "\ue010"
VISIBLE = (
    "[...document.querySelectorAll('a, button, input, select, canvas, [tabindex=\"0\"]')]"
    ".filter((e) => !e.disabled && e.tabIndex >= 0 && e.checkVisibility())"
)
MANY = """
const page = async (url, { signal }) => {
  const offset = Number(new URL(url, location).searchParams.get('offset'));
  const gone = new Promise((_, stop) => signal.addEventListener('abort', () => {
    aborted += 1;
    stop(new DOMException('', 'AbortError'));
  }));
  await Promise.race([gone, new Promise((go) => setTimeout(go, 400))]);  // longer than a jump of the driver
  const length = Math.min(100, 100000 - offset);
  const data = Array.from({ length }, (_, at) => ({ ...item, name: `picture ${offset + at}` }));
  return answer(200, { data, total: 100000 });
};
fakes.push([/^.v1.items.offset/, page]);
"""
OUTSIDE = """
return [...document.querySelectorAll('button, input, select, a, h1, h2, p')].filter((e) => {
  const { width, left, right } = e.getBoundingClientRect();
  return e.checkVisibility() && !e.matches('.skip') && width && (right > 361 || left < -1);
}).map((e) => e.outerHTML.slice(0, 100))"""
SMALL = """
return [...document.querySelectorAll('button')]
  .filter((e) => e.checkVisibility() && Math.min(e.offsetWidth, e.offsetHeight) < 24)
  .map((e) => e.outerHTML.slice(0, 100))"""

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, photos: Path, starter: Encoder) -> Iterator[Page]:
    with served_page(tmp_path_factory.mktemp("states"), photos, starter) as page:
        yield page


@pytest.fixture
def page(browser: Page) -> Iterator[Page]:
    start_over(browser)
    yield browser
    assert browser.problems() == []


def open_board(page: Page) -> None:
    page.js("go('labels'); board.setLabels(['cat', 'coffee', 'rocket'])")
    page.wait(lambda: page.js("return document.querySelectorAll('.bin .tile img.ready').length > 5"))


def open_map(page: Page) -> None:
    page.js("go('map')")
    page.wait(lambda: page.js("return map.points && [...map.images.values()].some((one) => one.naturalWidth)"))


def test_a_server_that_is_away(page: Page) -> None:
    page.offline(True)
    page.type("#search-input", "cat\n")
    page.wait(lambda: "cannot be reached" in page.text("#banner"))
    assert "Trying again" in page.text("#banner")
    page.offline(False)
    page.click("#banner-now")
    page.wait(lambda: page.found()[0] == "chelsea.png")
    page.wait(lambda: not page.find("#banner").is_displayed())
    assert all("ERR_INTERNET_DISCONNECTED" in problem for problem in page.problems())


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again(page: Page, status: int) -> None:
    page.js(
        "let left = 1; fakes.push([/search/, (url, options, real) =>"
        " (left-- > 0 ? failed(arguments[0], { 'retry-after': '1' }) : real())])",
        status,
    )
    page.type("#search-input", "cat\n")
    page.wait(lambda: "busy" in page.text("#banner"))
    page.wait(lambda: page.found()[0] == "chelsea.png")
    assert page.js("return sent.filter((one) => one.url === '/v1/search').length") == 2


def test_a_failure_is_shown_with_a_way_on(page: Page) -> None:
    page.js("let left = 1; fakes.push([/search/, (url, o, real) => (left-- > 0 ? failed(500) : real())])")
    page.type("#search-input", "cat\n")
    page.wait(lambda: "The server failed" in page.text("#wall-state"))
    assert "r-17" in page.text("#wall-state")
    page.click("#wall-state button")
    page.wait(lambda: page.found()[0] == "chelsea.png")


def test_nothing_found_and_nothing_there(page: Page) -> None:
    page.js("query.add(filterPart('attributes.none', 'x'))")
    page.wait(lambda: "Nothing found" in page.text("#wall-state"))
    page.click("#wall-state button")
    page.wait(lambda: page.js(COUNT) > 10)
    page.js("fakes.push([/items.offset/, () => answer(200, { data: [], total: 0 })]); query.set([])")
    page.wait(lambda: "No pictures yet" in page.text("#wall-state"))
    assert page.find("#wall-state .primary").is_displayed()
    page.js("session.scope = 'read'; session.render(); showState()")
    assert "not add" in page.text("#wall-state")


def test_a_picture_that_is_gone(page: Page) -> None:
    page.js("panel.open({ id: '0'.repeat(32) })")
    page.wait(lambda: "not there any more" in page.text("#panel"))
    assert all("404" in problem for problem in page.problems())


def test_everything_is_reached_by_tab(page: Page) -> None:
    page.open_picture("coffee.png")
    page.js("document.activeElement.blur(); window.reached = new Set(); document.querySelector('.skip').focus()")
    expected = page.js(f"return {VISIBLE}.length")
    hidden_focus = []
    for _ in range(expected + 3):
        seen = page.js(
            "const e = document.activeElement; reached.add(e); const s = getComputedStyle(e.closest('.search') ?? e);"
            "return [e.id || e.className || e.tagName, s.outlineStyle !== 'none' || e.matches('main, body')]"
        )
        if not seen[1]:
            hidden_focus.append(seen[0])
        page.keys(TAB)
    assert page.js(f"return {VISIBLE}.filter((e) => !reached.has(e)).map((e) => e.outerHTML.slice(0, 120))") == []
    assert hidden_focus == []


def test_a_change_of_size_keeps_the_focus(page: Page) -> None:
    page.js("wall.focus(7)")
    page.size(900, 700)
    page.wait(lambda: page.js("return wall.columns") < 6)
    assert page.js("return document.activeElement.dataset.place") == "7"


def test_keys_alone_do_everything(page: Page) -> None:
    page.keys("/")
    assert page.focused() == "search-input"
    page.keys("cat\n")
    page.wait(lambda: page.found()[0] == "chelsea.png")
    page.keys(DOWN, RIGHT, RIGHT)
    assert page.js("return document.activeElement.dataset.place") == "2"
    page.keys(ENTER)
    page.wait(lambda: page.focused() == "panel-title")
    page.js("document.querySelector('.panel .actions button:nth-child(3)').focus()  // choose a part")
    page.keys(ENTER, RIGHT, DOWN, ENTER)
    page.wait(lambda: page.js("return query.parts[0]?.region") == [0.27, 0.27, 0.5, 0.5])
    page.wait(lambda: page.js("return wall.list.get(0)?.similarity !== undefined"))
    page.js("$('panel-title').focus()")
    page.keys(ESCAPE)
    page.wait(lambda: page.js("return $('panel').hidden && document.activeElement.matches('.tile')"))
    page.keys("2")
    page.js("$('board-input').focus()")
    page.keys("cat,coffee,")
    page.wait(lambda: page.js("return document.querySelectorAll('.bin').length") == 3)
    page.js("document.querySelector('.bin .tile').focus()")
    page.keys(ENTER)
    page.wait(lambda: page.focused() == "panel-title")
    page.wait(lambda: "cat" in page.text("#panel-labels"))
    page.keys(ESCAPE)
    page.wait(lambda: page.js("return document.activeElement.matches('.bin .tile')"))
    page.keys("?")
    page.wait(lambda: page.find("#keys").is_displayed())
    page.js("$('single-keys').click()")
    page.keys(ESCAPE, "1")
    assert page.js("return view") == "labels"  # single keys can be turned off


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(page: Page, theme: str) -> None:
    script = axe_script()
    page.theme(theme)
    rules = ["color-contrast"] if theme == "dark" else []
    found = {}

    def look(name: str) -> None:
        page.driver.execute_async_script("setTimeout(arguments[0], 350)")  # what fades in has done so
        found[name] = page.axe(script, rules)

    look("wall")
    page.search("-cat")
    page.search("moon")
    page.open_picture("coffee.png")
    look("search and panel")
    page.js("panel.picker.begin()")
    look("region")
    page.js("askDelete(panel.item)")
    look("question")
    page.js("$('ask').close(); panel.close(); toast('plain'); toast('bad', 'bad')")
    open_board(page)
    look("board")
    open_map(page)
    look("map")
    page.click("#map-as-list")
    page.wait(lambda: page.js("return document.querySelectorAll('#map-list button').length > 5"))
    look("list")
    page.js("showKeys()")
    look("keys")
    page.js("$('keys').close(); $('menu').showPopover()")
    look("menu")
    page.js("$('menu').hidePopover(); session.needed()")
    look("key")
    assert {name: problems for name, problems in found.items() if problems} == {}


@pytest.mark.parametrize("language", ["en", "ko"])
def test_a_narrow_screen(page: Page, language: str) -> None:
    page.size(360, 740)
    page.open(language=language, before=SPY)

    def check() -> None:
        assert page.js("return document.documentElement.scrollWidth") <= 360
        assert page.js(OUTSIDE) == []
        assert page.js(SMALL) == []

    page.wait(lambda: page.js("return wall.columns") == 3)
    page.search("cat")
    page.search("-dog")
    check()
    page.open_picture("coffee.png")
    assert page.js("return $('main').inert && $('panel').clientWidth") == 360
    check()
    page.js("panel.close()")
    open_board(page)
    check()
    open_map(page)
    check()
    page.js("showKeys()")
    check()


def test_a_hundred_thousand_pictures(page: Page) -> None:
    page.js("window.aborted = 0; window.item = wall.list.get(0)")
    page.js(MANY + "query.set([])")
    page.wait(lambda: page.js(COUNT) == 100_000)
    page.wait(lambda: page.js("return wall.list.items.size >= 100"))
    frames = page.driver.execute_async_script(
        "const done = arguments[0]; const times = []; let before = performance.now();"
        "const step = (now) => { times.push(now - before); before = now; wall.scroller.scrollTop += 900;"
        " if (times.length < 90) requestAnimationFrame(step); else done(times.sort((a, b) => a - b)); };"
        "requestAnimationFrame(step);"
    )
    assert frames[len(frames) // 2] < 50
    for top in (500_000, 1_500_000, 100_000):  # leaves while pages are on their way
        page.js("wall.scroller.scrollTop = arguments[0]", top)
        page.wait(lambda: page.js("return wall.list.pending.size"))
    page.js("wall.focus(0)")
    page.keys(END)
    page.wait(lambda: page.js("return document.activeElement.ariaLabel") == "picture 99999")
    assert page.js("return document.querySelectorAll('.tile').length") < 150
    assert page.js("return aborted") >= 1
    assert page.js("return sent.filter((one) => one.url.startsWith('/v1/items?')).length") < 40
