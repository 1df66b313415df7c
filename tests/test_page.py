"""The page of `nunbit serve` in a real browser, against a real server process."""

from __future__ import annotations

import re
import sys
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from browser import COUNT, SENT, SPY, Page, served_page, start_over
from nunbit.encode import Encoder
from nunbit.serve.keys import KeyFile, Scope

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def browser(folder: Path, photos: Path, starter: Encoder) -> Iterator[Page]:
    with served_page(folder, photos, starter) as page:
        yield page


@pytest.fixture
def page(browser: Page) -> Iterator[Page]:
    """Nothing may turn up in the console, but what a test takes out itself."""
    start_over(browser)
    yield browser
    assert browser.problems() == []


def upload_noise(page: Page, folder: Path, seed: int, name: str) -> str:
    pixels = np.random.default_rng(seed).integers(0, 255, (60, 80, 3), np.uint8)
    Image.fromarray(pixels).save(folder / name)
    before = page.js(COUNT)
    page.find("#files").send_keys(str(folder / name))
    page.wait(lambda: page.js(COUNT) == before + 1)
    return str(
        page.wait(lambda: page.js("return wall.list.get(0)?.name === arguments[0] && wall.list.get(0).id", name))
    )


def test_first_paint(page: Page, capsys: pytest.CaptureFixture[str]) -> None:
    script = "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
    paints = []
    for _ in range(3):
        page.driver.refresh()
        paints.append(float(page.wait(lambda: page.js(script))))
    with capsys.disabled():
        sys.stdout.write(f"\nfirst contentful paint: {', '.join(f'{paint:.0f}' for paint in paints)} ms\n")
    assert min(paints) < 1000


@pytest.mark.parametrize(("language", "text"), [("en", "a cat"), ("ko", "고양이")])
def test_search_by_words(page: Page, language: str, text: str) -> None:
    page.open(language=language, before=SPY)
    page.search(text)
    assert page.found()[0] == "chelsea.png"
    assert text in page.text("#chips")
    assert page.text("nav [aria-current]") == {"en": "Pictures", "ko": "사진"}[language]
    page.driver.refresh()
    page.wait(lambda: page.js("return wall.list?.get(0)?.name") == "chelsea.png")  # the address holds it
    page.driver.back()
    page.wait(lambda: page.js("return query.isEmpty && wall.list.total > 15"))


def test_parts_are_added_subtracted_turned_and_removed(page: Page) -> None:
    page.search("cat")
    assert page.found()[0] == "chelsea.png"
    page.search("-cat")
    page.search("astronaut")
    weights = f"{SENT}.map((part) => [part.text, part.weight])"
    assert page.js(weights) == [["cat", 1], ["cat", -0.7], ["astronaut", 1]]
    page.click(".chip:nth-child(1) .out")
    page.click(".chip:nth-child(1) .sign")
    page.wait(lambda: page.js(weights) == [["cat", 1], ["astronaut", 1]])
    page.click("#search-clear")
    page.wait(lambda: page.js("return query.isEmpty && !wall.list.get(0)?.similarity"))


def test_search_by_a_picture_and_by_a_part_of_it(page: Page, folder: Path) -> None:
    page.find("#query-file").send_keys(str(folder / "album" / "both.png"))
    page.wait(lambda: page.found()[0] == "both.png")
    page.click(".chip button.chip-face")
    page.wait(lambda: page.find("#crop .region").is_displayed())
    page.js("document.querySelector('#crop img').decode()")
    page.click("#crop button[value=yes]")
    sent = f"{SENT}[0]"
    page.wait(lambda: page.js(sent)["region"] == [0.25, 0.25, 0.5, 0.5])


@pytest.mark.parametrize(("left", "name"), [(0.02, "coffee.png"), (0.52, "rocket.jpg")])
def test_search_by_a_region(page: Page, left: float, name: str) -> None:
    from selenium.webdriver import ActionChains

    page.open_picture("both.png")
    frame = page.find(".panel .frame")
    width, height = frame.size["width"], frame.size["height"]
    start = (int((left - 0.5) * width), int(-0.46 * height))
    drag = ActionChains(page.driver).move_to_element_with_offset(frame, *start).click_and_hold()
    drag.move_by_offset(int(0.46 * width), int(0.92 * height)).release().perform()
    page.click(".region-tools .primary")
    page.wait(lambda: page.js("return wall.list.get(2)?.similarity !== undefined"))
    region = page.js(f"{SENT}[0].region")
    assert region == pytest.approx([left, 0.04, 0.46, 0.92], abs=0.03)
    assert name in page.found()[:2]


def test_more_and_less_like_this(page: Page) -> None:
    page.open_picture("coffee.png")
    page.js("[...document.querySelectorAll('.panel .actions button')][0].click()")
    page.wait(lambda: page.found()[0] == "coffee.png")
    page.js("wall.focus(0)")
    page.keys("l")
    page.wait(lambda: page.js("return wall.list.total && wall.list.get(0)?.name") not in (None, "coffee.png"))
    assert page.js("return query.parts.map((part) => part.weight)") == [-0.7]


def test_upload_and_delete(page: Page, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 this is no picture")
    (tmp_path / "notes.txt").write_text("no picture either")
    name = upload_noise(page, tmp_path, 1, "noise.png") and "noise.png"
    page.find("#files").send_keys(f"{tmp_path / 'broken.jpg'}\n{tmp_path / 'notes.txt'}")
    page.wait(lambda: "2 were not added" in page.text("#tray"))
    assert "broken.jpg" in page.text(".rejected")
    assert "notes.txt not a picture" in page.text(".rejected")
    page.click("#tray button")
    assert all("400" in problem for problem in page.problems())  # the broken one came alone
    before = page.js(COUNT)
    id_ = page.js("return wall.list.get(0).id")
    page.js("wall.focus(0)")
    page.keys("\ue017")  # Delete
    page.wait(lambda: page.find("#ask").is_displayed())
    assert name in page.text("#ask")
    page.keys("\ue00c")  # Escape
    page.wait(lambda: not page.find("#ask").is_displayed())
    assert page.js("return document.activeElement.dataset.place") == "0"
    page.keys("\ue017", "\ue007")
    page.wait(lambda: page.js(COUNT) == before - 1)
    assert page.js("return document.activeElement.dataset.place") == "0"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        page.ask_server(f"/v1/items/{id_}")


def test_dropping_and_pasting(page: Page, tmp_path: Path) -> None:
    """On the search field a picture is looked for; elsewhere it is added."""
    transfer = """
      const canvas = Object.assign(document.createElement('canvas'), { width: 40, height: 30 });
      canvas.getContext('2d').fillRect(0, 0, arguments[2], 20);
      const done = arguments[3];
      canvas.toBlob((blob) => {
        const data = new DataTransfer();
        data.items.add(new File([blob], 'dropped.png', { type: 'image/png' }));
        const target = document.querySelector(arguments[0]);
        const more = { clipboardData: data, dataTransfer: data, bubbles: true, cancelable: true };
        const kind = arguments[1] === 'paste' ? ClipboardEvent : DragEvent;
        const event = new kind(arguments[1], more);
        target.dispatchEvent(event);
        done(true);
      });"""

    def send(target: str, event: str, seed: int) -> None:
        page.driver.execute_async_script(transfer, target, event, seed)

    before = page.js(COUNT)
    send("#wall", "dragover", 1)
    assert "Drop to add" in page.text("#drop")
    send("#search", "dragover", 1)
    assert "Drop to search" in page.text("#drop")
    send("#search", "drop", 11)
    page.wait(
        lambda: page.js("return query.parts[0]?.name === 'dropped.png' && wall.list.get(0)?.similarity !== undefined")
    )
    assert page.js(COUNT) == before
    assert not page.find("#drop").is_displayed()
    page.click("#search-clear")
    send("#wall", "drop", 17)
    page.wait(lambda: page.js(COUNT) == before + 1)
    send("#main", "paste", 23)
    page.wait(lambda: page.js(COUNT) == before + 2)
    send("#search-input", "paste", 29)
    page.wait(lambda: page.js("return query.parts.length") == 1)
    for item in page.ask_server("/v1/items?limit=2&order=newest")["data"]:
        page.ask_server(f"/v1/items/{item['id']}", "DELETE")


def test_panel(page: Page, tmp_path: Path) -> None:
    id_ = upload_noise(page, tmp_path, 2, "facts.png")
    page.open_picture("facts.png")
    assert re.search(r"Dimensions\s+80 × 60", page.text(".facts"))
    assert page.js("return document.querySelectorAll('.neighbors .tile').length") == 12
    page.type(".new-attribute input", "sku")
    page.type(".new-attribute input:nth-of-type(2)", "17\n")
    page.wait(lambda: page.ask_server(f"/v1/items/{id_}")["attributes"] == {"sku": 17})
    page.click(".panel-head .quiet")  # rename
    page.wait(lambda: page.find("#ask-input").is_displayed())
    page.keys("눈빛.png\n")
    page.wait(lambda: page.text("#panel-title") == "눈빛.png")
    page.click(".attributes button")  # only pictures with it
    page.wait(lambda: page.js(COUNT) == 1)
    assert "only sku: 17" in page.text("#chips")
    page.driver.back()
    page.wait(lambda: page.js("return query.isEmpty && panel.item?.name === '눈빛.png'"))
    page.driver.back()
    page.wait(lambda: page.js("return $('panel').hidden"))
    page.ask_server(f"/v1/items/{id_}", "DELETE")


def test_label_board(page: Page) -> None:
    page.keys("2")
    page.type("#board-input", "cat, coffee,rocket")  # the last one is not even finished
    bins = "return board.answer?.data.map((bin) => [bin.label, bin.count])"
    page.wait(lambda: [label for label, _ in page.js(bins) or []] == ["cat", "coffee", "rocket", None])
    best = page.js("return board.answer.data.slice(0, 3).map((bin) => bin.data[0].name)")
    assert best == ["chelsea.png", "coffee.png", "rocket.jpg"]
    assert sum(count for _, count in page.js(bins)) == page.js(COUNT)
    assert page.js("return document.querySelector('.bin .tile .figure').textContent").endswith("%")
    assert page.js(bins)[-1] == [None, 0]
    page.js("$('threshold').value = 0.9; $('threshold').dispatchEvent(new Event('input'))")
    page.wait(lambda: page.js(bins)[-1][1] > 0)
    assert "Unknown below 90%" in page.text("#board-form")
    page.click("#set-save")
    page.wait(lambda: page.find("#ask-input").is_displayed())
    page.keys("things\n")
    page.wait(lambda: "things" in page.text("#sets"))
    assert page.ask_server("/v1/labels/things")["labels"] == ["cat", "coffee", "rocket"]
    page.js("board.setLabels(['dog'])")
    page.js("$('sets').value = 'things'; $('sets').dispatchEvent(new Event('change'))")
    page.wait(lambda: len(page.js(bins)) == 4)
    page.click(".bin:last-child .small, .bin:nth-child(1) .tile")
    page.click("#set-delete")
    page.click("#ask-yes")
    page.wait(lambda: "things" not in page.text("#sets"))


def test_only_the_latest_answer_counts(page: Page) -> None:
    page.js(
        "fakes.push([/recognize.items/, async (url, { body, signal }, real) => {"
        " if (JSON.parse(body).labels.length === 1) await new Promise((go) => setTimeout(go, 700)); return real(); }])"
    )
    page.keys("2")
    page.js("board.setLabels(['slow']); board.setLabels(['cat', 'dog'])")
    page.wait(lambda: page.js("return board.answer?.data.length") == 3)
    page.driver.execute_async_script("setTimeout(arguments[0], 900)")
    assert page.js("return [...document.querySelectorAll('.bin h2')].map((one) => one.firstChild.data)") == [
        "cat",
        "dog",
        "Unknown",
    ]


def test_map(page: Page) -> None:
    page.keys("3")
    page.wait(
        lambda: page.js("return map.points?.ids.length && [...map.images.values()].some((one) => one.naturalWidth)")
    )
    page.js("$('map').focus()")
    zoomed = page.js("return map.zoom")
    page.keys("+", "+", "\ue014")  # ArrowRight
    assert page.js("return map.zoom") > zoomed
    page.wait(lambda: page.text("#map-name"))
    page.keys("\ue007")
    page.wait(lambda: page.text("#panel-title") == page.text("#map-name"))
    page.keys("\ue00c")
    page.wait(lambda: page.focused() == "map")
    page.click("#map-as-list")
    page.wait(lambda: page.js("return document.querySelectorAll('#map-list button').length > 10"))


def test_reading_folders(page: Page, folder: Path) -> None:
    page.wait(lambda: page.js("return indexing.canStart"))
    Image.new("RGB", (50, 40), "tomato").save(folder / "album" / "tomato.png")
    before = page.js(COUNT)
    page.click("#menu-button")
    page.click("#menu-index")
    page.wait(lambda: "Folders read: 1 added" in page.text("#toasts"))
    page.wait(lambda: page.js(COUNT) == before + 1)
    (folder / "album" / "tomato.png").unlink()


def test_both_languages_have_the_same_texts(page: Page) -> None:
    keys = page.js("return ['en', 'ko'].map((one) => Object.keys(STRINGS[one]).sort())")
    assert keys[0] == keys[1]
    arguments_ = "Object.entries(STRINGS[one]).map(([k, v]) => [k, typeof v === 'function' ? v.length : typeof v])"
    first, second = page.js(f"return ['en', 'ko'].map((one) => {arguments_}.sort())")
    assert [pair for pair in zip(first, second, strict=True) if pair[0] != pair[1]] == []
    used = (
        "[...document.querySelectorAll('*')].flatMap((e) => [e.dataset?.t, e.dataset?.tLabel, e.dataset?.tPlaceholder])"
    )
    assert page.js(f"return {used}.filter((key) => key && !(key in STRINGS.en))") == []
    page.click("#menu-button")
    page.click(".menu label:has([value=ko])")
    assert page.js("return document.documentElement.lang") == "ko"
    texts = page.js("return [...document.querySelectorAll('[data-t]')].map((e) => e.textContent)")
    assert [
        text for text in texts if re.search("[A-Za-z]{3}", text) and not re.search("OpenAI|SigLIP|Ctrl|Enter", text)
    ] == []


def test_keys(page: Page, folder: Path) -> None:
    """A key is asked for when it is needed and again when it has expired; what was under way goes on."""
    keys = KeyFile(folder / "photos.nunbit" / "keys.json")
    reader = keys.add("reader", Scope.READ)
    try:
        page.type("#search-input", "cat\n")
        page.wait(lambda: page.find("#sign-in-key").is_displayed())
        assert "no longer valid" in page.text("#sign-in")
        page.keys("nb-wrong\n")
        page.wait(lambda: "not valid" in page.text("#sign-in-problem"))
        page.keys(reader + "\n")
        page.wait(lambda: page.found()[0] == "chelsea.png")
        assert not page.find("#add").is_displayed()  # it may only read
        page.open_picture("chelsea.png")
        assert "Delete" not in page.text("#panel")
        keys.revoke("reader")
        page.keys("3")
        page.wait(lambda: page.find("#sign-in-key").is_displayed())
    finally:
        keys.path.unlink()
    problems = page.problems()
    assert problems and all("401" in problem for problem in problems)
    page.open(before=SPY)
