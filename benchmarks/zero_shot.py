"""How quick 500 pictures are compared with 1,000 labels by B/32, the second time in a row, on both cores.

Usage: python benchmarks/zero_shot.py [--rounds 3] [--page]

The labels are ImageNet's, in one sentence, "a photo of a {}."; the pictures COCO's, some twice. nunbit knows the
labels from the first call; open_clip and transformers embed them at each, as their documentation does. Every turn is a
process of its own, whose time is that of the second call alone.
"""

from __future__ import annotations

import json

from pages import Page, bar, compared
from random_models import B32, model_folder
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
LEAST = 6
AGREE = 0.99
"""Transformers resizes pictures by another algorithm."""


def main() -> None:
    """Measure."""
    made = parser(__doc__, rounds=3)
    made.add_argument("--count", type=int, default=500, help="pictures")
    made.add_argument("--labels", type=int, default=1000, help="labels")
    arguments = made.parse_args()
    pin(CORES)
    own_cache(arguments.scratch, CORES)
    page = Page(
        "zero-shot", f"{arguments.count} pictures, {arguments.labels} labels, ViT-B/32, second call, {CORES} cores"
    )
    model = model_folder(B32, arguments.scratch, arguments.shared)
    names = json.loads((arguments.shared / "golden/vit_b32_heads/imagenet_classes.json").read_text(encoding="utf-8"))
    labels = arguments.scratch / f"labels-{arguments.labels}.json"
    labels.write_text(json.dumps(list(dict.fromkeys(names))[: arguments.labels]), encoding="utf-8")
    pictures = links(photographs(arguments.shared), arguments.count, arguments.scratch / f"zero-shot-{arguments.count}")

    def peer(name: str, script: str, *more: object) -> Peer:
        out = arguments.scratch / f"similarities-{name.replace(' ', '-')}.npy"
        return Peer(name, child(script, model, pictures, labels, out, *more))

    peers = [
        peer("open_clip fp32, 0 workers", "open_clip_zero_shot.py"),
        peer("open_clip fp32, 2 workers", "open_clip_zero_shot.py", "--workers", 2),
        peer("transformers fp32", "transformers_zero_shot.py"),
        peer("transformers bf16", "transformers_zero_shot.py", "--bf16"),
        peer("nunbit auto", "nunbit_zero_shot.py"),
    ]
    peers[-1].turn()  # fills nunbit's cache: the others have none, and their processes need no warming up
    results = take_turns(peers, arguments.rounds, warm_up=False)
    base = best(results, "open_clip fp32")
    page.add(compared(results, base, "pictures"))
    page.add("The cosine is of a picture's similarities to all labels.")
    page.add(bar("nunbit auto to open_clip", ratio(best(results, "nunbit auto"), base), LEAST))
    page.wrong += disagreements(results, base, AGREE)
    page.close(to_file=arguments.page)


if __name__ == "__main__":
    main()
