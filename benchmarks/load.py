"""The server under load, beside one that answers one request at a time.

Usage: python benchmarks/load.py [--connections 1 8 64 256] [--seconds 60] [--pictures 10000] [--model starter] [--page]

Both serve a copy of one index and stay up for the whole run; at every number of connections they take turns. Three of
four requests are searches by words (captions of COCO), the others send a photograph, to be added or to be looked for.
The photographs are part of the index from the beginning, so that its size stays what it is. The first seconds of each
turn do not count. The client is a process of its own on the same cores, so each rate is of client and server together.
The last number of connections comes twice: what has grown since its first turn would grow for ever.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any

import numpy as np

from pages import Page, number, table
from random_models import NAMES, model_folder
from side_by_side import HERE, parser, photographs, pin, tell

CORES = 2
TEXTS = 2000
CHECKED = 200
WARM_UP = 10.0
LEAST = 3.0
"""Times the throughput of one request at a time, at ``AT`` connections."""
AT = 64
GROWTH = 1.05
"""How much more memory the last turn may end with than the turn before began with, of as many connections."""
OURS, BASE = "nunbit serve", "one at a time"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a server did in one turn.

    Attributes:
        connections: Open at a time.
        wall: Seconds.
        seconds: Kind of request → of each answer.
        failures: What went wrong → how often.
        before_mb: Resident memory after the warm-up.
        after_mb: The same at the end.
    """

    connections: int
    wall: float
    seconds: dict[str, list[float]]
    failures: Counter[str]
    before_mb: float
    after_mb: float

    @property
    def rate(self) -> float:
        """Answers a second."""
        return sum(map(len, self.seconds.values())) / self.wall

    def milliseconds(self, percent: int, *kinds: str) -> float:
        """A percentile of the time of some kinds of requests."""
        of_kinds = [value for kind in kinds for value in self.seconds.get(kind, [])]
        return 1e3 * quantiles(of_kinds, n=100)[percent - 1] if len(of_kinds) > 1 else float("nan")


@dataclass(slots=True)
class Served:
    """A server that runs, and its turns."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    work: Path
    turns: list[Loaded] = field(default_factory=list)

    def load(self, connections: int, seconds: float) -> None:
        """Warm up, then measure."""
        self.ask(connections, WARM_UP)
        before = self.resident_mb()
        said = self.ask(connections, seconds)
        turn = Loaded(connections, said["wall"], said["seconds"], Counter(said["failures"]), before, self.resident_mb())
        tell(f"{self.name}, {connections} connections: {turn.rate:.1f}/s, {turn.after_mb:.0f} MB {dict(turn.failures)}")
        self.turns.append(turn)

    def ask(self, connections: int, seconds: float) -> Any:
        """What the client says."""
        command = [sys.executable, str(HERE / "load_client.py"), str(self.port), str(self.work)]
        command += [str(connections), str(seconds)]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)

    def resident_mb(self) -> float:
        """What the process has in memory."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


def main() -> None:
    """Measure, and write the page."""
    made = parser(__doc__)
    made.add_argument("--connections", type=int, nargs="+", default=[1, 8, 64, 256])
    made.add_argument("--seconds", type=float, default=60.0)
    made.add_argument("--pictures", type=int, default=10_000, help="in the index")
    made.add_argument("--model", default="starter", help=f"starter, or of {', '.join(NAMES)}")
    arguments = made.parse_args()
    pin(CORES)
    model = arguments.model
    if model != "starter":
        model = str(model_folder(model, arguments.scratch, arguments.shared))
    index, work = prepare(arguments, model)
    with ExitStack() as stack:
        servers = [stack.enter_context(running(name, index, model, work)) for name in (OURS, BASE)]
        agree(servers, work)
        for connections in [*arguments.connections, arguments.connections[-1]]:
            for server in servers:
                server.load(connections, arguments.seconds)
    title = f"Mixed searches and uploads, {arguments.pictures:,} pictures, {arguments.model} encoder, {CORES} cores"
    page = Page(f"load-{arguments.model}", title)
    report(page, *servers)
    page.close(to_file=arguments.page)


def prepare(arguments: argparse.Namespace, model: str) -> tuple[Path, Path]:
    """An index, and the file that says what is asked.

    The photographs are real. What is missing to the wanted number are random rows, which cost a search the same.
    """
    import nunbit

    files = photographs(arguments.shared)
    folder = arguments.scratch / f"load-{arguments.model}-{arguments.pictures}"
    index = folder / "photos.nunbit"
    captions = json.loads((arguments.shared / "data/coco/captions_val2017.json").read_text(encoding="utf-8"))
    texts = [one["caption"] for one in captions["annotations"][:TEXTS]]
    work = folder / "work.json"
    folder.mkdir(parents=True, exist_ok=True)
    work.write_text(json.dumps({"texts": texts, "pictures": [str(path.absolute()) for path in files]}))
    if not (folder / ".complete").is_file():
        tell(f"making an index of {arguments.pictures:,} pictures")
        shutil.rmtree(index, ignore_errors=True)
        encoder = nunbit.load(model)
        with nunbit.Index.open(index, encoder) as made:
            fill(made, arguments.pictures - len(files), encoder.embedding_size)
        (folder / ".complete").touch()
    return index, work


def fill(index: Any, count: int, width: int) -> None:
    """Put random rows in."""
    from nunbit.index.rows import Row

    chance = np.random.default_rng(0)
    for start in range(0, count, 5000):
        rows = chance.normal(size=(min(5000, count - start), width)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        index.put(
            [
                Row(f"{start + n:032x}", f"/nowhere/{start + n}.jpg", 1, 0, 640, 480, "JPEG", None, "", "", "", row)
                for n, row in enumerate(rows)
            ]
        )


@contextmanager
def running(name: str, index: Path, model: str, work: Path) -> Iterator[Served]:
    """A server with an index of its own, to which every photograph has been sent once."""
    own = index.with_name(f"{name.replace(' ', '-')}.nunbit")
    shutil.rmtree(own, ignore_errors=True)
    shutil.copytree(index, own)
    port = 18_100 if name == OURS else 18_101
    command = [sys.executable, str(HERE / "as_written/one_at_a_time.py"), str(own), "--model", model]
    if name == OURS:
        command = [str(Path(sys.executable).with_name("nunbit")), "serve", "--in", str(own), "--limit", "rate=0"]
    with (own / "log").open("wb") as log, subprocess.Popen([*command, "--port", str(port)], stderr=log) as process:
        try:
            wait_for(port, process)
            server = Served(name, port, process, work)
            tell(f"{name}: sending every photograph once")
            send_all(port, json.loads(work.read_text())["pictures"])
            yield server
        finally:
            process.terminate()


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a server answers."""
    while process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
            return
        time.sleep(0.1)
    raise SystemExit("a server did not start")


def send_all(port: int, pictures: list[str]) -> None:
    """Add every picture."""
    from load_client import BOUNDARY, picture_request

    for path in pictures:
        body = picture_request("add", Path(path).read_bytes()).partition(b"\r\n\r\n")[2]
        kind = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
        urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/v1/items", body, kind)).close()


def agree(servers: list[Served], work: Path) -> None:
    """Keep what the first pictures of each text are, and check that both servers say the same."""
    said = json.loads(work.read_text(encoding="utf-8"))
    few = work.with_name("few.json")
    few.write_text(json.dumps({"texts": said["texts"][:CHECKED], "pictures": []}))
    found = []
    for server in servers:
        server.work, kept = few, server.work
        found.append(server.ask(1, 0))
        server.work = kept
    worst = max(np.abs(np.subtract(found[0][text], found[1][text])).max() for text in found[0])
    if worst > 2e-3:
        raise SystemExit(f"the servers do not find the same: similarities differ by {worst:.4f}")
    work.write_text(json.dumps(said | {"expected": found[0]}))


def report(page: Page, ours: Served, base: Served) -> None:
    """Tables, and whether the bars are met."""
    head = ["connections", "", "answers/s", f"times {BASE}", "failed", "text p50 ms", "p99", "picture p50 ms", "p99"]
    rows = []
    for turns in zip(ours.turns, base.turns, strict=True):
        for server, turn in zip((ours, base), turns, strict=True):
            times = f"{turn.rate / turns[1].rate:.2f}" if server is ours else ""
            spans = [turn.milliseconds(p, *kinds) for kinds in (("text",), ("add", "look")) for p in (50, 99)]
            failed = str(sum(turn.failures.values()))
            rows.append([str(turn.connections), server.name, number(turn.rate), times, failed, *map(number, spans)])
            page.wrong += [f"{server.name}: {what}, {count} times" for what, count in turn.failures.items()]
    page.add(table(head, rows))
    memory = [[str(t.connections), f"{t.before_mb:.0f}", f"{t.after_mb:.0f}"] for t in ours.turns]
    page.add(f"## Resident memory of {OURS}\n\n" + table(["connections", "after warm-up, MB", "at the end"], memory))
    first = next(turn for turn in ours.turns if turn.connections == ours.turns[-1].connections)
    grown = ours.turns[-1].after_mb / first.before_mb
    page.add(f"From the first turn of {first.connections} connections to the last: {grown:.3f} times.")
    if grown > GROWTH:
        page.wrong.append(f"memory grew to {grown:.2f} times")
    for mine, other in zip(ours.turns, base.turns, strict=True):
        if mine.connections == AT:
            met = "met" if mine.rate >= LEAST * other.rate else "not met"
            page.add(f"Bar at {AT} connections: {LEAST:g} times. Found {mine.rate / other.rate:.2f}: {met}.")


if __name__ == "__main__":
    main()
