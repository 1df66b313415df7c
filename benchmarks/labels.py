"""How fast and how exact a search among a million labels is, next to brute force.

Usage: python benchmarks/labels.py --wordnet DIR --captions captions_val2017.json --pictures DIR [--count 1000000]

The labels are WordNet's nouns with synonyms, phrases of two to four words from COCO's captions, and compounds drawn
from both, product names among them. Queries are the embeddings of pictures and of captions that the labels were not
made from word by word. Every searching number comes from a process of its own, with one BLAS thread, as the median of
five; the load of the machine is printed, for other processes may run. With ``--into DIR`` the set is kept, and used
again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROUNDS = 5
SMALL_WORDS = frozenset("a an the of in on at to and with is are for by from it its his her their that this as".split())
SYLLABLES = "ba be bo da do ka ki ko la li lo ma mi mo na ne no ra ri ro sa se so ta ti to va vi vo".split()


def main() -> None:
    """Build, then measure in processes of their own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("--captions", type=Path, required=True)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--into", type=Path)
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.into or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        if arguments.stage:
            STAGES[arguments.stage](folder)
            return
        if not (folder / "labels.jsonl").exists():
            write_labels(folder / "labels.jsonl", arguments)
        if not (folder / "queries.npz").exists():
            write_queries(folder / "queries.npz", arguments)
        for stage in STAGES:
            given = ["--captions", arguments.captions, "--pictures", arguments.pictures, "--into", folder]
            environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
            subprocess.run([sys.executable, __file__, *map(str, given), "--stage", stage], env=environment, check=True)


def write_labels(path: Path, arguments: argparse.Namespace) -> None:
    """Write ``count`` different labels; the same ones every time."""
    captions = json.loads(arguments.captions.read_text(encoding="utf-8"))["annotations"]
    words = [re.findall(r"[a-z]+", row["caption"].lower()) for row in captions]
    rows = _rows(words, arguments.wordnet)
    draft, seen = path.with_suffix(".draft"), set[str]()
    with draft.open("w", encoding="utf-8") as file:
        for row in rows:
            if row["name"] not in seen:
                seen.add(row["name"])
                file.write(json.dumps(row) + "\n")
            if len(seen) == arguments.count:
                break
    draft.replace(path)  # half a list would be taken for a whole one the next time


def _rows(words: list[list[str]], wordnet: Path) -> Iterator[dict[str, Any]]:
    from nunbit.wordnet import read_nouns

    nouns = read_nouns(wordnet)
    for noun in nouns.values():
        parents = [nouns[above].lemmas[0] for above in noun.hypernyms]
        yield {"name": noun.lemmas[0], "synonyms": noun.lemmas[1:], "parents": parents}
    for line in words:
        for size in (2, 3, 4):
            for at in range(len(line) - size + 1):
                run = line[at : at + size]
                if run[0] not in SMALL_WORDS and run[-1] not in SMALL_WORDS:
                    yield {"name": " ".join(run)}
    yield from ({"name": name} for name in _compounds(words, wordnet))


def _compounds(words: list[list[str]], wordnet: Path) -> Iterator[str]:
    rng = random.Random(0)
    counts = Counter(word for line in words for word in line if word not in SMALL_WORDS and len(word) > 2)

    def lemmas(kind: str) -> list[str]:
        lines = (wordnet / f"index.{kind}").read_text(encoding="latin-1").splitlines()
        return [line.split(" ")[0] for line in lines if not line.startswith(" ")]

    adjectives, nouns = ([word for word in lemmas(kind) if word in counts] for kind in ("adj", "noun"))
    rare = [word.replace("_", " ") for word in lemmas("noun") if word.replace("_", "").isalpha()]
    weights = [[counts[word] ** 0.5 for word in pool] for pool in (adjectives, nouns)]
    while True:
        (a, b), (n, m) = (rng.choices(p, w, k=2) for p, w in zip((adjectives, nouns), weights, strict=True))
        brand = "".join(rng.choices(SYLLABLES, k=3)).capitalize()
        yield from (f"{a} {n}", f"{n} {m}", f"{a} {n} {m}", f"{a} {b} {n}", f"{n} with {a} {m}", f"{n} for {m}")
        yield from (f"{a} {rng.choice(rare)}", f"{n} {rng.choice(rare)}", f"{brand} {a} {n}")
        yield f"{brand} {n} {rng.randrange(100, 1000)}"


def write_queries(path: Path, arguments: argparse.Namespace) -> None:
    """Embed pictures and 500 captions."""
    import nunbit
    from nunbit.encode import Encoded, encode_stream

    encoder = nunbit.load("starter")
    files = sorted(file for file in arguments.pictures.rglob("*") if file.suffix == ".jpg")
    pictures = [item.embedding for item in encode_stream(encoder, files) if isinstance(item, Encoded)]
    captions = json.loads(arguments.captions.read_text(encoding="utf-8"))["annotations"]
    chosen = [row["caption"] for row in random.Random(1).sample(captions, 500)]
    np.savez(path, picture=np.stack(pictures), text=encoder.encode_text(chosen))


def build(folder: Path) -> None:
    """Build the set, if it is not there, and print what that took."""
    import nunbit
    from nunbit.labels import LabelSet

    if not (folder / "set" / "labels.json").exists():
        _, report = LabelSet.build(folder / "labels.jsonl", folder / "set", nunbit.load("starter"))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"build: {report.seconds:.0f} s on one core, peak {peak:.0f} MB, {report.embedded:,} rows embedded")
    size = sum(file.stat().st_size for file in (folder / "set").rglob("*") if file.is_file())
    print(f"on disk: {size / 1e6:.0f} MB", flush=True)


def measure(folder: Path) -> None:
    """Time and memory of searching."""
    from nunbit.labels import LabelSet

    before = _resident()
    labels = LabelSet.open(folder / "set")
    queries = np.load(folder / "queries.npz")
    every = np.concatenate([queries["picture"], queries["text"]])
    batch = np.concatenate([every] * 5)[:4096]
    singles = [median(lambda at=at: labels.search(every[at : at + 1], 10)) for at in range(0, len(every), 20)]
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; labels: {len(labels):,}")
    print(f"one query: {np.median(singles) * 1000:.1f} ms (median), {np.quantile(singles, 0.95) * 1000:.1f} ms (95 %)")
    for threads in (1, 2):
        start = time.process_time()
        seconds = median(lambda threads=threads: labels.search(batch, 10, threads=threads), 3)
        used = (time.process_time() - start) / 3
        print(f"batches, {threads} threads: {len(batch) / seconds:.0f} queries/s, {used / seconds:.2f} cores got")
    print(f"resident: {_resident():.0f} MB, of these {before:.0f} before opening; peak {_peak():.0f} MB", flush=True)


def two_processes(folder: Path) -> None:
    """Batches in two processes that share the mapped files: what two cores do without a common interpreter lock."""
    code = f"""
import numpy as np, sys, time
from nunbit.labels import LabelSet
labels = LabelSet.open({str(folder / "set")!r})
queries = np.load({str(folder / "queries.npz")!r})
batch = np.concatenate([queries["picture"], queries["text"]] * 3)[:2048]
labels.search(batch[:256], 10, threads=1)
print("ready", flush=True); sys.stdin.readline()
start = time.perf_counter(); labels.search(batch, 10, threads=1); print(len(batch) / (time.perf_counter() - start))
"""
    rates = []
    for _ in range(3):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        both = [subprocess.Popen([sys.executable, "-c", code], **pipes) for _ in range(2)]  # type: ignore[call-overload]
        for process in both:
            process.stdout.readline()
        for process in both:
            process.stdin.write("\n")
            process.stdin.flush()
        rates.append(sum(float(process.communicate()[0]) for process in both))
    print(f"batches, 2 processes: {np.median(rates):.0f} queries/s; load {os.getloadavg()[0]:.1f}", flush=True)


def compare(folder: Path) -> None:
    """Recall and probabilities against brute force in float32, and the time that takes."""
    import nunbit
    from nunbit.labels import LabelSet

    encoder = nunbit.load("starter")
    labels = LabelSet.open(folder / "set", encoder)
    base, scales = labels._base, (encoder.logit_scale, 100.0)
    rows = np.concatenate([encoder.encode_text([base.text(r) for r in range(at, min(at + 8192, base.rows))])
                           for at in range(0, base.rows, 8192)])  # fmt: skip
    order, starts = np.asarray(base.label_rows), np.asarray(base.label_starts)[:-1]
    for kind, queries in np.load(folder / "queries.npz").items():
        chosen = queries[:300]
        near = np.concatenate([_label_similarity(rows, part, order, starts) for part in np.array_split(chosen, 15)])
        best = np.argpartition(-near, 10, axis=1)[:, :10]
        found = [[base.find(hit.label) for hit in hits] for hits in labels.search(chosen, 10)]
        recall = np.mean([len(set(a) & set(b.tolist())) / 10 for a, b in zip(found, best, strict=True)])
        print(f"recall@10, {kind}: {recall:.4f} of {len(chosen)} queries")
        for scale in scales:
            encoder.towers.logit_scale = scale
            truth = np.logaddexp.reduce(scale * near.astype(np.float64), axis=1)
            predicted = labels.predict(chosen, 1)
            off = [
                np.log(p[0].probability) - (scale * p[0].similarity - z) for p, z in zip(predicted, truth, strict=True)
            ]
            error = np.abs(np.expm1(off))
            print(f"  probability at logit_scale {scale:.0f}: off by {np.median(error):.2%} (median), "
                  f"{np.quantile(error, 0.95):.2%} (95 %)")  # fmt: skip
    one = median(lambda: np.argpartition(-(rows @ chosen[0]), 10)[:10])
    many = median(lambda: np.argpartition(-(chosen[:64] @ rows.T), 10, axis=1)[:, :10], 3) / 64
    print(f"brute force, float32, one core: {one * 1000:.0f} ms a query, {1 / many:.0f} queries/s in batches of 64")
    adding = [median(lambda n=n: labels.add([f"new label {n}"]), 1) for n in range(20)]
    removing = [median(lambda n=n: labels.remove([f"new label {n}"]), 1) for n in range(20)]
    print(f"add a label: {np.median(adding) * 1000:.1f} ms; remove: {np.median(removing) * 1000:.1f} ms", flush=True)


def _label_similarity(rows: Any, queries: Any, order: Any, starts: Any) -> Any:
    return np.maximum.reduceat((queries @ rows.T)[:, order], starts, axis=1)


def median(call: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Seconds of a call."""
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


def _resident() -> float:
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


STAGES: dict[str, Callable[[Path], None]] = {
    "build": build,
    "measure": measure,
    "two_processes": two_processes,
    "compare": compare,
}

if __name__ == "__main__":
    main()
