"""Trains the starter's vision-language model, kills it once, lets it go on, and draws its losses.

Usage: python benchmarks/starter_vlm_training.py --into DIR --coco ../shared/data/coco [--drawings PAIRS.jsonl ...]
       [--kill-at 410] [--page]

It calls `nunbit train starter-vlm`. When the second stage has logged the step ``--kill-at``, the process is killed with
SIGKILL, and the same command is called again; what it logs from its last checkpoint on must be what the killed one had
logged, to the bit. In a folder where that happened already, only the page is made.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pages import RESULTS, Page, table

STAGES = {"align": "first stage", "finetune": "second stage"}
KILLED = "before-the-kill.jsonl"


def main() -> None:
    """Train, kill, train, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, required=True, help="folder of the run")
    parser.add_argument("--coco", type=Path, required=True, help="as `nunbit train starter-vlm` takes it")
    parser.add_argument("--drawings", type=Path, action="append", default=[], help="as well; repeatable")
    parser.add_argument("--kill-at", type=int, default=410, help="step of the second stage")
    parser.add_argument("--page", action="store_true", help="write benchmarks/results")
    options = parser.parse_args()
    page = Page("starter-vlm-training", "How the starter's vision-language model learned")
    drawings = [part for path in options.drawings for part in ("--drawings", str(path))]
    arguments = ["train", "starter-vlm", "--coco", str(options.coco), *drawings, "--into", str(options.into)]
    train([sys.executable, "-m", "nunbit", *arguments], options.into, options.kill_at)
    page.add(f"`nunbit {' '.join(arguments)}`")
    page.add(_told(options.into))
    page.wrong += _compare(options.into, page)
    if options.page:
        page.add(f"![Losses]({draw_losses(options.into).name})")
    page.close(to_file=options.page)


def train(command: Sequence[str], into: Path, kill_at: int) -> None:
    """Call the command, once more after killing it, until there is a model."""
    metrics = into / "finetune" / "metrics.jsonl"
    if (into / "finetune" / "model").is_dir():
        return
    process = subprocess.Popen(command)
    while not (into / KILLED).exists() and process.poll() is None:
        if any(row["step"] >= kill_at for row in _rows(metrics)):
            shutil.copy(metrics, into / KILLED)
            process.send_signal(signal.SIGKILL)
            process.wait()
            process = subprocess.Popen(command)
        time.sleep(1)
    if process.wait() != 0:
        sys.exit(process.returncode)


def _rows(metrics: Path) -> list[dict[str, Any]]:
    """Whole lines with a loss."""
    lines = metrics.read_text(encoding="utf-8").split("\n")[:-1] if metrics.is_file() else []
    return [row for row in map(json.loads, lines) if "loss" in row]


def _told(into: Path) -> str:
    rows = []
    for folder, name in STAGES.items():
        logged = _rows(into / folder / "metrics.jsonl")
        config = json.loads((into / folder / "config.json").read_text(encoding="utf-8"))
        size, seconds = config["data"]["batch_size"], logged[-1]["seconds"]
        losses = [row["loss"] for row in logged]
        tenth = max(1, len(losses) // 10)
        ends = (sum(part) / len(part) for part in (losses[:tenth], losses[-tenth:]))
        memory = max(row["memory_mb"] for row in logged)
        rows.append([name, f"{logged[-1]['step']} x {size}", *(f"{loss:.2f}" for loss in ends),
                     f"{seconds / 3600:.2f}", f"{memory:,.0f}"])  # fmt: skip
    head = ["", "steps x samples", "loss, first tenth", "last tenth", "hours", "peak MB"]
    return table(head, rows)


def _compare(into: Path, page: Page) -> list[str]:
    if not (into / KILLED).is_file():
        page.add("It was not killed.")
        return []
    before, after = ({row["step"]: row["loss"] for row in _rows(path)}
                     for path in (into / KILLED, into / "finetune" / "metrics.jsonl"))  # fmt: skip
    every = json.loads((into / "finetune" / "config.json").read_text(encoding="utf-8"))["training"]["checkpoint_every"]
    checkpoint = max(before) // every * every
    again = [step for step in before if step > checkpoint]
    other = [step for step in before if before[step] != after.get(step)]
    page.add(
        f"Killed with SIGKILL behind step {max(before)} of the second stage and called again, it went on from its "
        f"checkpoint of step {checkpoint}. Steps logged by both: {', '.join(map(str, again))}; losses: "
        f"{', '.join(f'{before[step]!r} and {after[step]!r}' for step in again)}."
    )
    return [f"the loss of step {step} is another than before the kill" for step in other]


def draw_losses(into: Path) -> Path:
    """A picture of the losses of both stages beside the page: each logged step, and a mean over a twentieth."""
    import matplotlib

    matplotlib.use("Agg")
    import numpy as np
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
    for axis, (folder, name) in zip(axes, STAGES.items(), strict=True):
        logged = _rows(into / folder / "metrics.jsonl")
        steps, losses = (np.array([row[key] for row in logged], float) for key in ("step", "loss"))
        width = max(1, len(losses) // 20)
        axis.plot(steps, losses, linewidth=0.6, alpha=0.5, label="logged")
        axis.plot(steps[width - 1 :], np.convolve(losses, np.ones(width) / width, "valid"), label=f"mean of {width}")
        axis.set(xlabel="step", ylabel="loss, nats a token", title=name, ylim=(0, None))
        axis.legend()
    path = RESULTS / f"{datetime.date.today()}-starter-vlm-training.png"
    figure.savefig(path, dpi=100)
    return path


if __name__ == "__main__":
    main()
