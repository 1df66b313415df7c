"""A small ViT and a text transformer, trained from scratch on drawings of emoji, name those of artists never seen.

Usage: python benchmarks/emoji.py --into DIR [--packages FOLDER] [--set NAME=VALUE] [--page]

Makes the pairs (`emoji_pairs.py`), trains as `emoji.yaml` says, which is `nunbit train contrastive`, and asks for each
drawing of two unseen styles which of all 1,914 names is its own, in English and in Korean. OpenMoji is the validation
style: it was looked at during the run. Twitter's is the test style: it is read once, at the end. Run it again, and it
goes on where it was.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import nunbit
from nunbit.contrastive.run import load_config, run_contrastive
from nunbit.training.watching import console_watcher

from emoji_pairs import find_packages, make_pairs
from pages import RESULTS, Page, table

if TYPE_CHECKING:
    from nunbit.encode import Encoder
    from nunbit.types import FloatArray

HERE = Path(__file__).parent
LANGUAGES = {"en": "English", "ko": "Korean"}
STYLES = {"validation": "OpenMoji", "test": "Twitter"}
BAR = 50.0
MINUTES = 45


def main() -> None:
    """Make pairs, train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, required=True, help="a folder for the pairs and the run")
    parser.add_argument("--packages", type=Path, help="a folder where the npm packages lie already")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="a setting of emoji.yaml")
    parser.add_argument("--page", action="store_true", help="write benchmarks/results")
    options = parser.parse_args()
    into: Path = options.into
    if not (into / "README.md").is_file():  # written last
        make_pairs(into, find_packages(options.packages, into / "packages"))
    shutil.copy(HERE / "emoji.yaml", into)
    config = load_config(into / "emoji.yaml", options.overrides)
    with console_watcher(config.training.steps, leads=True) as watcher:
        result = run_contrastive(config, into / "run", watcher)
    assert result is not None
    encoder = nunbit.load(result.model, engine="torch")
    page = Page("emoji", "Names for drawings of an artist never seen, from scratch")
    rows = [row for part in STYLES for row in measure(encoder, into, part)]
    head = ["style", "names", "drawings", "R@1, %", "R@5, %", "without flags R@1, %", "flags R@1, %"]
    page.add(table(head, [[*row[:2], f"{row[2]:,}", *(f"{value:.1f}" for value in row[3:])] for row in rows]))
    reached = next(row[3] for row in rows if row[:2] == [STYLES["test"], LANGUAGES["en"]])
    met = "met" if reached >= BAR else "not met"
    page.add(
        f"Bar, R@1 of the test style in English: at least {BAR:g} %, by chance 0.05 %. Found {reached:.1f} %: {met}."
    )
    page.add(facts(into / "run"))
    page.add(
        "The recipe was chosen by what it reaches on OpenMoji. Twitter's drawings became the test style after first "
        "models, trained with them among others, had been measured on EmojiOne's, which trains since. They were read "
        "twice: a first run of 6,500 steps reached 62.9 % in 38 minutes, but with a vocabulary that another process "
        "would have learned a little differently, so that nobody could have got it again. That was mended, and the "
        "steps were cut to 5,000 so that a slower machine stays below the 45 minutes; nothing else was changed."
    )
    if options.page:
        page.add(f"![Curves]({draw_curves(into / 'run').name})")
    page.close(to_file=options.page)


def measure(encoder: Encoder, into: Path, part: str) -> list[list[Any]]:
    """A row for each language: style, language, drawings, and percentages."""
    drawings = [json.loads(line) for line in (into / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()]
    concepts = [json.loads(line) for line in (into / "concepts.jsonl").read_text(encoding="utf-8").splitlines()]
    numbers = {concept["concept"]: number for number, concept in enumerate(concepts)}
    own = np.array([numbers[row["concept"]] for row in drawings])
    flags = np.array([concepts[number]["labels"]["en"].startswith("flag:") for number in own])
    images = encoder.encode_image([into / row["image"] for row in drawings])
    found = []
    for code, language in LANGUAGES.items():
        ranks = _ranks(images @ encoder.encode_text([concept["labels"][code] for concept in concepts]).T, own)
        shares = [ranks < 1, ranks < 5, ranks[~flags] < 1, ranks[flags] < 1]
        found.append([STYLES[part], language, len(own), *(100 * float(share.mean()) for share in shares)])
    return found


def _ranks(similarity: FloatArray, own: np.ndarray) -> np.ndarray:
    """How many other names are at least as near as the right one, for each drawing."""
    right = similarity[np.arange(len(own)), own]
    ranks: np.ndarray = (similarity >= right[:, None]).sum(1) - 1
    return ranks


def facts(run: Path) -> str:
    """How long it took, and on what."""
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    steps = [row for row in read_metrics(run) if "loss" in row]
    seconds, memory = steps[-1]["seconds"], max(row["memory_mb"] for row in steps)
    met = "met" if seconds <= 60 * MINUTES else "not met"
    machine = config["versions"]["machine"]
    return (
        f"Bar, minutes of training on {machine}: at most {MINUTES}. Found {seconds / 60:.1f}: {met}. "
        f"{steps[-1]['step']:,} steps of {config['data']['batch_size']} drawings, peak memory {memory:,.0f} MB, seed "
        f"{config['training']['seed']}.\n\nData fingerprint: `{config['data_fingerprint']}`. The recipe is "
        "[emoji.yaml](../emoji.yaml); drawings and their licences are in [emoji_sources.py](../emoji_sources.py)."
    )


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of the run's log."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def draw_curves(run: Path) -> Path:
    """Loss, and retrieval on the validation style, as a picture in ``benchmarks/results``."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = read_metrics(run)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
    losses: Sequence[dict[str, Any]] = [row for row in rows if "loss" in row]
    left.plot([row["step"] for row in losses], [row["loss"] for row in losses], linewidth=0.8)
    left.set(title="loss", xlabel="step")
    measured = [row for row in rows if "validation/image_to_text_r1" in row]
    for name, label in (("image_to_text_r1", "drawing → text R@1"), ("text_to_image_r1", "text → drawing R@1")):
        right.plot([row["step"] for row in measured], [row[f"validation/{name}"] for row in measured], label=label)
    right.set(title="OpenMoji, with all its texts, %", xlabel="step", ylim=0)
    right.legend()
    path = RESULTS / f"{datetime.date.today()}-emoji.png"
    figure.savefig(path, dpi=110)
    return path


if __name__ == "__main__":
    main()
