"""Whether a picture takes as long, and the whole as much memory, in a folder of 1,000, 10,000 and 100,000 pictures.

Usage: python benchmarks/growth.py [--most 100000] [--model starter] [--page]

The folders hold links to COCO's photographs under names of their own. Each is indexed into a new index by a process of
its own, the small ones several times, taking turns.
"""

from __future__ import annotations

from statistics import median

from pages import Page, megabytes, number, table
from random_models import NAMES, model_folder
from side_by_side import Peer, Result, child, links, own_cache, parser, photographs, pin, tell

CORES = 2
COUNTS = (1_000, 10_000, 100_000)
WITHIN = 10
"""Percent by which the time of a picture may differ."""


def main() -> None:
    """Measure."""
    made = parser(__doc__, rounds=3)
    made.add_argument("--most", type=int, default=COUNTS[-1], help="leave out larger folders")
    made.add_argument("--model", default="small", help=f"starter, or of {', '.join(NAMES)}")
    arguments = made.parse_args()
    pin(CORES)
    own_cache(arguments.scratch, CORES)
    page = Page("growth", f"Indexing 1,000 to {arguments.most:,} pictures, {arguments.model} encoder, {CORES} cores")
    model = arguments.model
    if model != "starter":
        model = model_folder(model, arguments.scratch, arguments.shared)
    files = photographs(arguments.shared)
    results = []
    for count in [count for count in COUNTS if count <= arguments.most] or [arguments.most]:
        pictures = links(files, count, arguments.scratch / f"growth-{count}")
        results.append(Result(Peer(f"{count:,}", child("nunbit_index.py", model, pictures))))
    results[0].peer.turn()  # prepares the engine and warms the system's cache of files
    for round_ in range(arguments.rounds):
        for result in results:
            if round_ == 0 or result.last.count <= COUNTS[1]:  # the largest takes minutes, and is steady
                tell(f"round {round_ + 1} of {arguments.rounds}: {result.name} pictures")
                result.turns.append(result.peer.turn())
    each = [median(turn.seconds / turn.count for turn in result.turns) for result in results]
    rows = [
        [
            result.name,
            str(len(result.turns)),
            f"{1e3 * time:.2f}",
            number(1 / time),
            f"{100 * (time / each[0] - 1):+.1f} %",
            megabytes(result.most("peak_mb")),
        ]
        for result, time in zip(results, each, strict=True)
    ]
    page.add(table(["pictures", "runs", "ms a picture", "pictures/s", "beside the smallest", "peak MB"], rows))
    worst = 100 * (max(each) / min(each) - 1)
    met = "met" if worst <= WITHIN else "not met"
    page.add(f"Bar: the time of a picture stays within {WITHIN} %. Slowest to quickest {worst:.1f} %: {met}.")
    page.close(to_file=arguments.page)


if __name__ == "__main__":
    main()
