"""The run report: curves of any number of steps, hostile strings, damaged files, one page of a bounded size."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nunbit.errors import UsageError
from nunbit.pages.charts import BUCKETS
from nunbit.training.metrics import MetricLog
from nunbit.training.report import write_report

HOSTILE = "<script>alert(1)</script>'\"><img src=x onerror=alert(2)></style>\ud800\x00\u202e`x` & 눈빛 👩\u200d🔧"
KNOWN = {"loss": 2.0, "learning_rate": 1e-4, "logit_scale": 14.3, "gradient_norm": 1.0, "samples_per_second": 800.0}
KNOWN |= {"memory_mb": 3000.0, "seconds": 1.0}


def picture(color: str = "teal") -> str:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), color).save(file, "JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def write_lines(path: Path, *objects: Any) -> None:
    path.write_text("".join(json.dumps(item) + "\n" for item in objects), encoding="utf-8")


def make_run(folder: Path, *, steps: int = 3, config: Mapping[str, Any] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config or {"versions": {"nunbit": "0.1.0"}}), encoding="utf-8")
    rows = ({"step": step} | KNOWN | {"loss": 5 / step, "seconds": step * 30.0} for step in range(1, steps + 1))
    write_lines(folder / "metrics.jsonl", *rows)
    return folder


def save_examples(folder: Path, step: int, **content: Any) -> None:
    (folder / "examples").mkdir(exist_ok=True)
    top = [["개", 0.5, False], ["고양이", 0.25, True], ["dog", 0.1, False]]
    example = {"step": step, "matrix": [[0.9, 0.1], [0.8, 0.3]], "pictures": [picture(), picture("red")]}
    example |= {"texts": ["고양이", "a dog"], "retrieval": [{"picture": 0, "truth": "고양이", "top": top}]}
    (folder / "examples" / f"step-{step:06d}.json").write_text(json.dumps(example | content), encoding="utf-8")


class Page(HTMLParser):
    """A page as a browser reads it: its elements with their attributes, and its text."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.html = write_report(folder).read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(self.html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img") and not self.get_starttag_text().endswith("/>"):  # type: ignore[union-attr]
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_the_headline_curves_and_configuration_of_a_run(tmp_path: Path) -> None:
    config = {
        "name": "눈빛 옷",
        "command": ["nunbit", "train", "--set", "name=my run"],
        "versions": {"nunbit": "0.1.0", "torch": "2.13.0"},
        "training": {"seed": 7, "betas": [0.9, 0.98]},
        "data": [{"path": "옷/a.jsonl"}],
    }
    folder = make_run(tmp_path / "run", steps=250, config=config)
    with MetricLog(folder) as log:
        for step, share in ((100, 25.0), (200, 75.0), (250, 50.0)):
            found = {"validation/image_to_text_r1": share, "validation/text_to_image_r1": share / 2}
            log.write(step, **found, **{"validation/loss": 1.0, "validation/my_number": 3.0})
        log.write(251, **{"validation/image_to_text_r1": 99.0})  # half of an evaluation is none
    page = Page(folder)
    for words in (
        "눈빛 옷",
        "seed 7",
        "251",
        "picture → text 99 %",
        "2 h 5 min",
        "56.2 %mean, at step 200",
        "3 GBat most",
        "800pairs",
    ):
        assert words in page.text, words
    for words in ("nunbit train --set 'name=my run'", "betas0.9, 0.98", "0.path옷/a.jsonl", "torch2.13.0"):
        assert words in page.text, words
    titles = re.findall(r"<h3>(.*?)</h3>", page.html)
    assert titles[:2] == ["Loss", "Validation recall at 1"] and "my number" in titles and len(titles) == 8
    assert "No step" not in page.text and "Notes" not in page.text
    assert not (page.all("link") or re.search(r"https?://(?!www\.w3\.org/2000/svg)", page.html))


def test_a_text_that_is_there_twice_is_no_mistake(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    save_examples(folder, 1, matrix=[[0.5, 0.6], [0.4, None]], texts=["개", "개"])
    assert "mistaken" not in "".join(re.findall("<td.*", Page(folder).html))
    save_examples(folder, 1, matrix=[[0.5, 0.6], [0.4, None]])
    assert "".join(re.findall("<td.*", Page(folder).html)).count("mistaken") == 2


def test_several_sets_of_validation_pairs_have_charts_of_their_own(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    sides = ("image_to_text", "text_to_image")
    with MetricLog(folder) as log:
        for step, share in ((1, 20.0), (2, 50.0), (3, 40.0)):
            sets = {
                f"validation/{name}/{side}_r{k}": share + k for name in ("옷", "a/b") for side in sides for k in (1, 5)
            }
            log.write(step, **sets, **{"validation/mean_r1": share})
    page = Page(folder)
    titles = re.findall(r"<h3>(Validation.*?)</h3>", page.html)
    assert [title.removeprefix("Validation recall at ") for title in titles] == [
        "1",
        "1, a/b",
        "1, 옷",
        "5, a/b",
        "5, 옷",
    ]
    assert "50.0 %mean, at step 2" in page.text
    assert page.text.count("text → picture 45 %") == 2


def test_a_diagnosis_is_a_box_and_a_problem_comes_once(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    findings = [{"step": n, "problem": "stuck", "words": f"loss is {n}", "remedy": "run `nunbit x`"} for n in (2, 5, 3)]
    write_lines(folder / "diagnosis.jsonl", *findings)
    page = Page(folder)
    assert [box["class"] for box in page.all("aside")] == ["problem"]
    assert "stuck3 times, steps 2 to 5loss is 3What helps: run nunbit x" in page.text


def test_set_aside_pictures_are_counted_by_reason(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    reasons = ["truncated"] * 5 + ["not an image"] * 2
    write_lines(
        folder / "ledger.jsonl",
        *({"path": f"{n}.jpg", "reason": r, "detail": f"{n}.jpg: 9 bytes"} for n, r in enumerate(reasons)),
    )
    page = Page(folder)
    assert "7 pictures were set aside" in page.text
    assert page.text.index("truncated5") < page.text.index("not an image2")
    assert "2.jpg 9 bytes" in page.text and "3.jpg" not in page.text  # three of each reason


def test_the_matrix_frames_pairs_and_marks_mistakes(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    save_examples(folder, 10, matrix=[[0.0, 0.0], [0.0, None]])
    save_examples(folder, 20, matrix=[[0.1, 0.2], [0.1, 0.3]])  # never shown: neither the first nor the last
    save_examples(folder, 123)
    page = Page(folder)
    rows = re.findall(r"<tr><th scope=\"row\">.*?</tr>", page.html)
    cells = [re.findall(r'<td class="([^"]*)"[^>]*>([^<]*)', row) for row in rows]
    assert cells[0] == [("own hot", ".90"), ("mistaken hot", ".80")]  # the last step first; a row is a text
    assert cells[1] == [("", ".10"), ("own", ".30")]
    assert cells[2:4] == [[("own", ".00"), ("mistaken", ".00")], [("mistaken", ".00"), ("none", "–")]]  # a tie is none
    assert "own text is the nearest" in page.text and "For 1 of 2 pictures" in page.text and "For 0 of 2" in page.text
    assert "step 20" not in page.text
    assert "(framed) 0.60 on average, all others 0.45" in page.text
    assert "0 of 1 pictures find a text of their own first" in page.text
    assert re.findall(r'<b class="(\w+)"', page.html) == ["wrong", "right", "other"]


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_run_that_has_hardly_begun_has_a_page(tmp_path: Path, steps: int) -> None:
    page = Page(make_run(tmp_path, steps=steps))
    assert ("No step has been written yet" in page.text) == (steps == 0)
    assert len(page.all("svg")) == (6 if steps else 0)
    assert "Best validation–none" in page.text or not steps


def test_a_log_alone_and_a_log_without_a_finite_number_have_a_page(tmp_path: Path) -> None:
    write_lines(
        tmp_path / "metrics.jsonl", {"step": 1, "loss": None, "not_finite": ["loss"]}, {"step": 2, "loss": 1e99}
    )
    page = Page(tmp_path)
    assert "Last lossnot finite" in page.text and "config.json is not there" in page.text
    assert page.all("svg") == []


def test_what_is_damaged_is_told_and_the_rest_is_shown(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    (folder / "config.json").write_text('{"a":')
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('nonsense\n[1]\n{"step": 9, "loss": 1.0}\n{"step": 2}\n{"cut off')
    (folder / "ledger.jsonl").write_text('{"path": 3}\n')
    save_examples(folder, 1, matrix=[[1.0], [2.0]])
    save_examples(folder, 2)
    save_examples(folder, 3, texts=None)
    page = Page(folder)
    for words in ("config.json is not JSON", "line 4 and 1 further lines of metrics.jsonl", "line 1 of ledger.jsonl"):
        assert words in page.text
    assert "examples/step-000001.json cannot" in page.text and "examples/step-000003.json cannot" in page.text
    assert "at step 2:" in page.text and "Steps9" in page.text


def test_hostile_strings_stay_text(tmp_path: Path) -> None:
    nested = json.loads("[" * 940 + "]" * 940)
    config = {
        "name": HOSTILE,
        "command": HOSTILE,
        HOSTILE: {HOSTILE: HOSTILE},
        "versions": {"nunbit": HOSTILE},
        "n": nested,
    }
    folder = make_run(tmp_path, config=config)
    rows = (
        {"step": n, "loss": 10**400, HOSTILE: n, f"validation/{HOSTILE}/image_to_text_r1": 0.5, "text": HOSTILE}
        for n in (1, 2)
    )
    write_lines(folder / "metrics.jsonl", *rows)
    write_lines(folder / "ledger.jsonl", {"path": HOSTILE, "reason": HOSTILE, "detail": HOSTILE})
    write_lines(folder / "diagnosis.jsonl", {"step": 1, "problem": HOSTILE, "words": HOSTILE, "remedy": HOSTILE})
    bad = ["javascript:alert(1)", 'data:image/jpeg;base64,AA"onerror=alert(1)', "data:image/svg+xml;base64,AA"]
    save_examples(folder, 5, matrix=[[0.5], [0.1], [1e300]], pictures=bad, texts=[HOSTILE],
                  retrieval=[{"picture": 7, "truth": HOSTILE, "top": [[HOSTILE, 0.1, False]]}])  # fmt: skip
    page = Page(folder)
    tags = Counter(tag for tag, _ in page.elements)
    assert tags["script"] == tags["style"] == 1 and tags["img"] == 0
    assert not [
        name for _, attributes in page.elements for name in attributes if name.startswith("on") or name == "src"
    ]
    assert "0.0.0.0.0.0…" in page.text  # lists in lists
    assert "눈빛 👩\u200d🔧" in page.text and "\u202e" not in page.html and "\\u202e" in page.text
    script = re.search(r"<script>(.*)</script>", page.html, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in str(page.all("meta"))


def test_the_largest_page_is_below_5_mb_and_quick(tmp_path: Path) -> None:
    long, steps = "\U000e0001" * 3000, 100_000
    config = {f"{name}{long}": {f"{n}{long}": long for n in range(200)} for name in range(5)}
    folder = make_run(tmp_path, config=config)
    draw = np.random.default_rng(0)
    values = draw.normal(size=(steps // 20, 80)).round(4).tolist()
    names = [f"number {n}{long}" for n in range(80)]
    with (folder / "metrics.jsonl").open("w") as file:
        for step in range(1, steps + 1):
            row = {"step": step} | KNOWN
            if step % 20 == 0 and step <= 20 * 60:
                row |= dict(zip(names, values[step // 20], strict=True))
            file.write(json.dumps(row) + "\n")
    large, too_large = (f"data:image/png;base64,{'A' * size}" for size in (47_900, 4_900_000))
    matrix = draw.normal(size=(20, 20)).tolist()
    retrieval = [{"picture": n, "truth": long, "top": [[long, 0.5, False]] * 20} for n in range(20)]
    for step in (1, 2):
        save_examples(
            folder, step, matrix=matrix, pictures=[too_large] + [large] * 19, texts=[long] * 20, retrieval=retrieval
        )
    write_lines(folder / "ledger.jsonl", *({"path": long, "reason": f"{n}{long}", "detail": long} for n in range(100)))
    begin = time.process_time()
    page = Page(folder)
    assert time.process_time() - begin < 30  # of this process alone; some seconds is what it takes
    assert 1_000_000 < len(page.html.encode()) < 5_000_000
    assert "further numbers of the log have no chart" in page.text and "The rest is in config.json" in page.text
    assert page.html.count('class="card"') == 12 and page.html.count('<tr><th scope="row">') == 300 + 30 + 2 * 16
    assert max(map(len, re.findall("<bdi>([^<]*)", page.html))) == 400
    for svg in page.all("svg"):
        assert all(len(line["x"]) <= BUCKETS for line in json.loads(str(svg["data-lines"])))


def test_the_same_folder_gives_the_same_page_and_leaves_nothing_else(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    before = {path.name for path in folder.iterdir()}
    assert write_report(folder) == folder / "report.html"
    page = (folder / "report.html").read_bytes()
    write_report(folder)
    assert (folder / "report.html").read_bytes() == page
    assert {path.name for path in folder.iterdir()} == before | {"report.html"}


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no run in"):
        write_report(tmp_path / "nothing")


def test_neither_log_nor_report_imports_torch() -> None:
    code = "import sys, nunbit.training.metrics, nunbit.training.report; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
