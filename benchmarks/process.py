"""How quick a whole process is that names one picture by ten labels: start, import, load, embed, print.

Usage: python benchmarks/process.py [--rounds 10] [--page]

nunbit is ``nunbit recognize`` with its caches warm, as they are from the second call on; open_clip and transformers are
the shortest scripts that do the same (``as_written/``). Files are in the system's cache for all of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pages import Page, bar, compared
from random_models import B32, model_folder
from side_by_side import (
    HERE,
    Peer,
    Turn,
    best,
    disagreements,
    own_cache,
    parser,
    photographs,
    ratio,
    take_turns,
    whole_process,
)

LABELS = ["cat", "dog", "pizza", "bus", "train", "giraffe", "kitchen", "beach", "tennis player", "traffic light"]
LEAST = 4
CORES = 2
Read = Callable[[Any], dict[str, float]]


def main() -> None:
    """Measure."""
    arguments = parser(__doc__, rounds=10).parse_args()
    own_cache(arguments.scratch, CORES)
    page = Page("process", "Whole process: ViT-B/32, one picture, ten labels, warm cache")
    model = model_folder(B32, arguments.scratch, arguments.shared)
    given = [str(model), str(photographs(arguments.shared, 1)[0]), ",".join(LABELS)]
    command = [str(Path(sys.executable).with_name("nunbit")), "recognize", given[1], "--model", given[0]]
    command += ["--labels", given[2], "--top-k", str(len(LABELS)), "--json"]
    peers = [
        Peer("open_clip fp32", whole(script("open_clip_recognize.py", *given))),
        Peer("transformers fp32", whole(script("transformers_recognize.py", *given))),
        Peer("transformers bf16", whole(script("transformers_recognize.py", *given, "bf16"))),
        Peer("nunbit torch", whole(command, {"NUNBIT_ENGINE": "torch"})),
        Peer("nunbit auto", whole(command)),
    ]
    results = take_turns(peers, arguments.rounds)
    base = best(results, "open_clip fp32")
    page.add(compared(results, base, "processes"))
    page.add("The cosine is of the ten probabilities.")
    page.add(bar("nunbit auto to open_clip", ratio(best(results, "nunbit auto"), base), LEAST))
    page.wrong += disagreements(results, base)
    page.close(to_file=arguments.page)


def script(name: str, *given: str) -> list[str]:
    """A command that runs a script of ``as_written``."""
    return [sys.executable, str(HERE / "as_written" / name), *given]


def whole(command: list[str], environment: dict[str, str] | None = None) -> Callable[[], Turn]:
    """A turn that is one process; its answer the labels' probabilities."""

    def turn() -> Turn:
        said, seconds, peak = whole_process(command, environment)
        if "predictions" in said:  # nunbit's, the most probable first
            said = {row["label"]: row["probability"] for row in said["predictions"]}
        rows = np.array([[said[label] for label in LABELS]], np.float32)
        return Turn(1, seconds, rows, seconds, peak)

    return turn


if __name__ == "__main__":
    main()
