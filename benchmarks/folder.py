"""How quick a folder of JPEGs becomes embeddings on disk: 640 x 480 with B/32, 12 megapixels with a small encoder.

Usage: python benchmarks/folder.py [--kinds 640x480 12mp] [--rounds 5] [--page]

Both cores work. Every turn is a process of its own that does what a user would write (``as_written/``). Its time
starts when the model is open and has seen one picture, and ends when the embeddings are written. open_clip runs with
and without workers that decode, at several batch sizes; the quickest is the base.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ceiling import measure_ceilings, picture_flops
from large_photographs import large_photographs
from pages import Page, Share, bar, compared
from random_models import B32, SMALL, configuration, model_folder
from side_by_side import (
    Peer,
    best,
    child,
    disagreements,
    links,
    own_cache,
    parser,
    photographs,
    pin,
    ratio,
    take_turns,
)

CORES = 2
LARGE = 32
AGREE = 0.99
"""Less than between engines: transformers resizes otherwise, and nunbit decodes large pictures scaled."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of folder: the model that embeds it, and how many times as quick as open_clip nunbit should be."""

    model: str
    least: float


KINDS = {"640x480": Kind(B32, 5.5), "12mp": Kind(SMALL, 3.5)}


def main() -> None:
    """Measure each kind of folder, on a page of its own."""
    made = parser(__doc__)
    made.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    made.add_argument("--count", type=int, help="pictures in the folder")
    made.add_argument("--batches", nargs="+", type=int, default=[8, 32], help="of open_clip and transformers")
    arguments = made.parse_args()
    pin(CORES)
    own_cache(arguments.scratch, CORES)
    for kind in arguments.kinds:
        measure(kind, arguments)


def measure(name: str, arguments: argparse.Namespace) -> None:
    """One kind of folder."""
    kind = KINDS[name]
    pictures = folder_of(name, arguments)
    count = len(list(pictures.glob("*.jpg")))
    page = Page(f"folder-{name}", f"{count} JPEGs of {name} to {kind.model} embeddings on disk, {CORES} cores")
    model = model_folder(kind.model, arguments.scratch, arguments.shared)
    share = Share(picture_flops(configuration(kind.model).vision), measure_ceilings())
    page.add(share.words())
    peers = folder_peers(model, pictures, arguments.scratch / "embeddings", arguments.batches)
    results = take_turns(peers, arguments.rounds)
    base = best(results, "open_clip fp32")
    page.add(compared(results, base, "pictures", share))
    for ours in ("nunbit stream", "nunbit index"):
        page.add(bar(f"{ours} to open_clip", ratio(best(results, ours), base), kind.least))
    page.add(f"## Where nunbit's time goes\n\n{stages(model, pictures)}")
    page.wrong += disagreements(results, base, AGREE)
    page.close(to_file=arguments.page)


def folder_of(name: str, arguments: argparse.Namespace) -> Path:
    """The folder of pictures of one kind."""
    files = photographs(arguments.shared, arguments.count or (LARGE if name == "12mp" else None))
    folder = arguments.scratch / f"{name}-{len(files)}"
    return large_photographs(files, folder) if name == "12mp" else links(files, len(files), folder)


def folder_peers(model: Path, pictures: Path, out: Path, batches: Sequence[int]) -> list[Peer]:
    """All that embed a folder."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    peers = []
    for batch in batches:
        for workers in (0, 2):
            given = (model, pictures, out / f"open_clip-{batch}-{workers}.npy", "--batch", batch, "--workers", workers)
            name = f"batch {batch}, {workers} workers"
            peers.append(Peer(f"open_clip fp32, {name}", child("open_clip_folder.py", *given), "fp32"))
    given = (model, pictures, out / "open_clip-bf16.npy", "--batch", max(batches), "--workers", 2, "--bf16")
    peers.append(Peer(f"open_clip bf16, batch {max(batches)}, 2 workers", child("open_clip_folder.py", *given), "bf16"))
    for precision in ("fp32", "bf16"):
        given = (model, pictures, out / f"transformers-{precision}.npy", "--batch", max(batches))
        more = ["--bf16"] if precision == "bf16" else []
        turn = child("transformers_folder.py", *given, *more)
        peers.append(Peer(f"transformers {precision}, batch {max(batches)}", turn, precision))
    precision, shown = _auto(model)
    stream = child("nunbit_folder.py", model, pictures, out / "nunbit.npy")
    index = child("nunbit_index.py", model, pictures, "--out", out / "nunbit-index.npy")
    return [
        *peers,
        Peer(f"nunbit stream ({shown})", stream, precision),
        Peer("nunbit index", index, precision),
    ]


def _auto(model: Path) -> tuple[str, str]:
    """The precision of pictures that nunbit takes by itself, and its engine's name."""
    from peers import Nunbit

    library = Nunbit(model, "auto")
    return library.precision("pictures"), library.encoder.engine.name


def stages(model: Path, pictures: Path) -> str:
    """Nunbit's speed step by step, each by itself: what bounds the whole."""
    import nunbit
    from nunbit.stage_speed import measure_stages

    from pages import number, table

    found = measure_stages(nunbit.load(model), sorted(pictures.glob("*.jpg")))
    rows = [[stage.stage, number(stage.alone), number(stage.threads)] for stage in found]
    return table(["step", "pictures/s, one thread", "pictures/s, all cores"], rows)


if __name__ == "__main__":
    main()
