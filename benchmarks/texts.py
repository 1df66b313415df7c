"""How quick labels of one to six words become CLIP embeddings on one core, tokenization and all.

Usage: python benchmarks/texts.py [--rounds 5] [--page]

The labels are the first one to six words of COCO's captions. Each library gets 32 at a time, open_clip and transformers
other numbers as well, and the best of open_clip's is the base. open_clip pads every text to 77 tokens, transformers to
the longest of the batch. The share of the ceiling counts the tokens of the labels themselves: padding is no work.
"""

from __future__ import annotations

import json
import random
from functools import partial
from pathlib import Path

from alone import memory_alone
from ceiling import measure_ceilings, text_flops
from pages import Page, Share, bar, compared
from peers import Nunbit, in_batches, library_names, open_library
from random_models import B32, configuration, model_folder
from side_by_side import Peer, best, disagreements, own_cache, parser, pin, ratio, take_turns, timed

BATCH = 32
PEER_BATCHES = (8, 32, 128)
LEAST = 26


def main() -> None:
    """Measure."""
    made = parser(__doc__)
    made.add_argument("--count", type=int, default=128, help="labels a turn")
    made.add_argument("--no-memory", action="store_true", help="do not measure memory")
    arguments = made.parse_args()
    pin(1)
    own_cache(arguments.scratch, 1)
    page = Page("texts", "ViT-B/32's text tower, labels of 1 to 6 words to embeddings, one core")
    folder = model_folder(B32, arguments.scratch, arguments.shared)
    texts = labels(arguments.shared, arguments.count)
    names = [name for name in library_names(folder) if "openvino" not in name]  # they share one text tower
    peers = []
    for name in names:
        library = open_library(name, folder)
        for size in (BATCH,) if isinstance(library, Nunbit) else PEER_BATCHES:
            work = timed(partial(in_batches, library.texts, texts, size))
            peers.append(Peer(f"{name}, batch {size}", work, library.precision("texts")))
    share = Share(_flops_a_label(texts, library), measure_ceilings())
    page.add(share.words())
    results = take_turns(peers, arguments.rounds)
    base = best(results, "open_clip fp32")
    page.add(compared(results, base, "labels", share))
    page.add(bar("batch 32, nunbit auto to open_clip", ratio(best(results, "nunbit auto"), base), LEAST))
    page.wrong += disagreements(results, base)
    if not arguments.no_memory:
        inputs = arguments.scratch / "labels.json"
        inputs.write_text(json.dumps(texts))
        page.add(memory_alone(names, folder, inputs, BATCH))
    page.close(to_file=arguments.page)


def labels(shared: Path, count: int) -> list[str]:
    """The beginnings of captions, no two alike."""
    path = shared / "data" / "coco" / "captions_val2017.json"
    captions = json.loads(path.read_text(encoding="utf-8"))["annotations"]
    rng = random.Random(0)
    cut = (
        " ".join(row["caption"].strip(" .\n").split()[: rng.randint(1, 6)])
        for row in rng.sample(captions, len(captions))
    )
    return list(dict.fromkeys(cut))[:count]


def _flops_a_label(texts: list[str], library: object) -> float:
    """The mean over the labels."""
    assert isinstance(library, Nunbit)
    config, tokenizer = configuration(B32).text, library.encoder.tokenizer
    lengths = [int((ids == config.end_token_id).argmax()) + 1 for ids in tokenizer(texts)]
    return sum(text_flops(config, length) for length in lengths) / len(lengths)


if __name__ == "__main__":
    main()
