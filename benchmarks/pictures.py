"""How quick pictures are embedded on one core: B/32 one at a time and 32 at a time, B/16 8 at a time.

Usage: python benchmarks/pictures.py [--models B32 B16] [--rounds 5] [--page]

Every peer gets the same normalized pixels. open_clip and transformers run at several batch sizes, and the best of
open_clip's is the base; one picture at a time is compared with one picture at a time. Memory is of a process that
opens the model with one library and embeds the same pictures once.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np

from alone import memory_alone
from ceiling import measure_ceilings, picture_flops
from pages import Page, Share, bar, compared
from peers import Nunbit, as_square_pixels, in_batches, library_names, open_library
from random_models import B16, B32, configuration, model_folder
from side_by_side import (
    Peer,
    Result,
    best,
    disagreements,
    own_cache,
    parser,
    photographs,
    pin,
    ratio,
    take_turns,
    timed,
)
from tower_profile import profile

MODELS = {"B32": B32, "B16": B16}
QUESTIONS = {"B32": {1: 6.5, 32: 6.3}, "B16": {8: 6.3}}
"""By model the batch sizes asked about, and how many times as quick as open_clip nunbit should be."""

PEER_BATCHES = {"B32": (1, 8, 32), "B16": (1, 8, 16)}
COUNT = {"B32": 32, "B16": 16}
INT8_SHARE = 50
"""Percent of the ceiling of int8 that B/16 should reach."""


def main() -> None:
    """Measure each model, on a page of its own."""
    made = parser(__doc__)
    made.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    made.add_argument("--count", type=int, help="pictures a turn")
    made.add_argument("--no-memory", action="store_true", help="do not measure memory")
    arguments = made.parse_args()
    pin(1)
    own_cache(arguments.scratch, 1)
    for model in arguments.models:
        measure(model, arguments)


def measure(model: str, arguments: argparse.Namespace) -> None:
    """One model: all peers at all their batch sizes, then a table a question."""
    page = Page(f"pictures-{model.lower()}", f"{MODELS[model]}, pixels to embeddings, one core")
    folder = model_folder(MODELS[model], arguments.scratch, arguments.shared)
    names = library_names(folder)
    pixels = as_square_pixels(
        photographs(arguments.shared, arguments.count or COUNT[model]), Nunbit(folder, "auto").encoder
    )
    share = Share(picture_flops(configuration(MODELS[model]).vision), measure_ceilings())
    page.add(share.words())
    results = take_turns(make_peers(model, folder, names, pixels), arguments.rounds)
    for batch, least in QUESTIONS[model].items():
        answer(page, batch, least, results, share)
    if model == "B16":
        page.add(int8_share(results, share))
    for engine in [name.split()[1] for name in names if "openvino" in name]:
        page.add(profile(folder, engine, pixels[: max(QUESTIONS[model])]))
    if not arguments.no_memory:
        inputs = arguments.scratch / f"pixels-{model}.npy"
        np.save(inputs, pixels)
        page.add(memory_alone(names, folder, inputs, max(QUESTIONS[model])))
    page.close(to_file=arguments.page)


def make_peers(model: str, folder: Path, names: list[str], pixels: np.ndarray) -> list[Peer]:
    """Every library at every batch size that it is asked for."""
    peers = []
    for name in names:
        library = open_library(name, folder)
        shown = f"{name} ({library.encoder.engine.name})" if isinstance(library, Nunbit) and "auto" in name else name
        for size in QUESTIONS[model] if isinstance(library, Nunbit) else PEER_BATCHES[model]:
            work = timed(partial(in_batches, library.pictures, pixels, size))
            peers.append(Peer(f"{shown}, batch {size}", work, library.precision("pictures")))
    return peers


def answer(page: Page, batch: int, least: float, results: list[Result], share: Share) -> None:
    """One question: its table and its bar."""
    alike = f"batch {batch}"
    asked = [
        result
        for result in results
        if result.name.endswith(f", {alike}") or (batch > 1 and not result.name.startswith("nunbit"))
    ]
    base = best(asked, "open_clip fp32")
    page.add(f"## Batch {batch}\n\n{compared(asked, base, 'pictures', share)}")
    page.add(bar(f"{alike}, nunbit auto to open_clip", ratio(best(asked, "nunbit auto"), base), least))
    page.wrong += disagreements(asked, base)


def int8_share(results: list[Result], share: Share) -> str:
    """The other bar of B/16."""
    int8 = [share.percent(result) for result in results if result.peer.precision == "int8"]
    if not int8:
        return "Bar, share of the int8 ceiling: int8 is refused for this model."
    met = "met" if max(int8) >= INT8_SHARE else "not met"
    return f"Bar, share of the int8 ceiling: at least {INT8_SHARE} %. Found {max(int8):.0f} %: {met}."


if __name__ == "__main__":
    main()
