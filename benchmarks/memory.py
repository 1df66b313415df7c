"""How much memory it takes to embed a folder of photographs with B/32, from start to end.

Usage: python benchmarks/memory.py [--rounds 3] [--page]

Peak: the most of what the process has resident at a time, plus what its workers hold for themselves alone. Extra: that
less what the process has resident when its libraries are imported, so that torch's own size is no excuse; the weights
are part of it. The base is open_clip as most people run it, with two workers that decode; without workers it takes
less, and is shown.
"""

from __future__ import annotations

from folder import CORES, folder_of, folder_peers
from pages import Page, bar, megabytes, table
from random_models import B32, model_folder
from side_by_side import Result, best, own_cache, parser, pin, ratio, take_turns

MOST = 0.6


def main() -> None:
    """Measure."""
    made = parser(__doc__, rounds=3)
    made.add_argument("--count", type=int, help="pictures in the folder")
    arguments = made.parse_args()
    pin(CORES)
    own_cache(arguments.scratch, CORES)
    model = model_folder(B32, arguments.scratch, arguments.shared)
    pictures = folder_of("640x480", arguments)
    page = Page(
        "memory", f"Memory: {len(list(pictures.glob('*.jpg')))} JPEGs of 640x480 to ViT-B/32 embeddings on disk"
    )
    peers = folder_peers(model, pictures, arguments.scratch / "embeddings", [32])
    results = take_turns(peers, arguments.rounds, warm_up=False)
    for base in (quickest(results, "2 workers"), quickest(results, "0 workers")):
        page.add(f"## Beside {base.name}\n\n{memory_table(results, base)}")
        for ours in ("nunbit stream", "nunbit index"):
            found = ratio(best(results, ours), base, extras)
            page.add(bar(f"{ours}, extra memory beside {base.name}", found, MOST, at_most=True))
    page.close(to_file=arguments.page)


def quickest(results: list[Result], end: str) -> Result:
    """open_clip with so many workers."""
    return best([result for result in results if result.name.endswith(end)], "open_clip fp32")


def extras(result: Result) -> list[float]:
    """Extra memory, by round."""
    return [turn.extra_mb or 0.0 for turn in result.turns]


def memory_table(results: list[Result], base: Result) -> str:
    """Peak, extra, ratio."""
    rows = [
        [
            result.name,
            megabytes(result.most("base_mb")),
            megabytes(result.most("peak_mb")),
            megabytes(result.most("extra_mb")),
            str(ratio(result, base, extras)),
        ]
        for result in results
    ]
    return table(["", "libraries MB", "peak MB", "extra MB", "times (lowest to highest)"], rows)


if __name__ == "__main__":
    main()
