"""Contrastive losses in tiles beside the formulas as they are written: time, memory, exactness.

Usage: python benchmarks/losses.py [--page] [--pairs 16384] [--large 65536] [--cores 1]

Forward and backward of random unit rows, 512 wide, with a scale of 14 and a bias of -10. Time is taken in turns in one
process. Memory is that of a process of its own for each case: the most that was resident less what was when the
embeddings were there and a batch of 64 had been through; gradients count. Exactness is the distance to the formula in
float64.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pages import Page, bar, compared, table
from resident import peak_mb, resident_mb
from side_by_side import Peer, Turn, disagreements, parser, pin, ratio, take_turns, tell, whole_process

if TYPE_CHECKING:
    from torch import Tensor

WIDTH = 512
SMALL = 4096
"""Pairs where exactness is looked at: the formula in float64 takes long."""

WAYS, DTYPES = ("formula", "tiles"), ("float32", "bfloat16")

LIMITS = {"sigmoid": 300, "softmax": 1000}
"""MB beyond the embeddings."""


def main() -> None:
    """Measure."""
    made = parser(__doc__, rounds=3)
    made.add_argument("--pairs", type=int, default=16_384, help="in a batch whose time is taken")
    made.add_argument("--large", type=int, default=65_536, help="in a batch whose memory is measured")
    made.add_argument("--cores", type=int, default=1, help="to compute with")
    made.add_argument("--alone", nargs=4, help=argparse.SUPPRESS)
    arguments = made.parse_args()
    pin(arguments.cores)
    if arguments.alone:
        measure_alone(*arguments.alone)
        return
    page = Page("losses", f"Contrastive losses of {arguments.pairs:,} and {arguments.large:,} pairs, {WIDTH} wide")
    for kind in ("softmax", "sigmoid"):
        results = take_turns(peers(kind, arguments.pairs), arguments.rounds)
        page.wrong += disagreements(results, results[0])
        page.add(f"## Time, {kind}, {arguments.pairs:,} pairs\n\n{compared(results, results[0], 'pairs')}")
        page.add(bar(f"{kind}, float32, tiles beside the formula", ratio(results[1], results[0]), 1.0))
        page.add(bar(f"{kind}, bfloat16, the same", ratio(results[3], results[2]), 1.0))
    page.add(memory(arguments))
    page.add(exactness())
    page.close(to_file=arguments.page)


def peers(kind: str, count: int) -> list[Peer]:
    """Formula and tiles in both types; they answer with the pictures' gradient."""
    return [
        Peer(f"{way}, {dtype}", turn(loss_of(way, kind), embeddings(count, dtype))) for dtype in DTYPES for way in WAYS
    ]


def turn(loss: Callable[..., Tensor], sides: list[Tensor]) -> Callable[[], Turn]:
    """Forward and backward."""

    def go() -> Turn:
        for side in sides:
            side.grad = None
        start = time.perf_counter()
        loss(*sides, *scalars()).backward()
        seconds = time.perf_counter() - start
        return Turn(len(sides[0]), seconds, sides[0].grad.float().numpy())

    return go


def loss_of(way: str, kind: str) -> Callable[..., Tensor]:
    """A loss of images, texts, scale and bias."""
    from nunbit import losses

    if kind == "sigmoid":
        return losses.tiled_sigmoid if way == "tiles" else losses.sigmoid_contrastive
    softmax = losses.tiled_softmax if way == "tiles" else losses.softmax_contrastive
    return lambda images, texts, scale, bias: softmax(images, texts, scale)


def embeddings(count: int, dtype: str) -> list[Tensor]:
    """Two sides of unit rows, made in small parts so that nothing larger was ever resident."""
    import torch

    generator = torch.Generator().manual_seed(0)
    sides = [torch.empty(count, WIDTH, dtype=getattr(torch, dtype)) for _ in range(2)]
    for side in sides:
        for part in side.split(256):
            rows = torch.randn(part.shape, generator=generator, dtype=torch.float64)
            part.copy_(rows / rows.norm(dim=1, keepdim=True))
    return [side.requires_grad_() for side in sides]


def scalars(dtype: str = "float32") -> list[Tensor]:
    """Scale and bias."""
    import torch

    return [torch.tensor(value, dtype=getattr(torch, dtype), requires_grad=True) for value in (14.0, -10.0)]


def measure_alone(way: str, kind: str, dtype: str, count: str) -> None:
    """One case in this process, reported as JSON."""
    loss = loss_of(way, kind)
    loss(*embeddings(64, dtype), *scalars()).backward()
    sides = embeddings(int(count), dtype)
    base = resident_mb()
    start = time.perf_counter()
    loss(*sides, *scalars()).backward()
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "extra": (peak_mb() - base) * 1.048576}))  # from MiB


def memory(arguments: argparse.Namespace) -> str:
    """A table, with the limits."""
    cases = [("formula", "float32", arguments.pairs), ("tiles", "float32", arguments.pairs)]
    cases += [("tiles", "float32", arguments.large), ("tiles", "bfloat16", arguments.large)]
    rows, bars = [], []
    for kind in ("softmax", "sigmoid"):
        for way, dtype, count in cases:
            tell(f"memory of {way}, {kind}, {dtype}, {count:,} pairs")
            case = [way, kind, dtype, str(count)]
            command = [sys.executable, __file__, "--cores", str(arguments.cores), "--alone", *case]
            said: dict[str, Any] = whole_process(command)[0]
            rows.append([kind, way, dtype, f"{count:,}", f"{said['extra']:,.0f}", f"{said['seconds']:.0f}"])
            if way == "tiles" and dtype == "float32" and count == arguments.large:
                met = "met" if said["extra"] <= LIMITS[kind] else "not met"
                bars.append(
                    f"Bar, {kind}, {count:,} pairs: at most {LIMITS[kind]} MB. Found {said['extra']:,.0f}: {met}."
                )
    head = ["", "", "type", "pairs", "MB beyond the embeddings", "s"]
    gradients = 2e-6 * 4 * WIDTH * arguments.large
    note = f"The gradients of {arguments.large:,} pairs are {gradients:,.0f} MB of it in float32."
    return "\n\n".join(["## Memory", table(head, rows), note, *bars])


def exactness() -> str:
    """A table: how far value and gradients are from float64."""
    rows = []
    for kind in ("softmax", "sigmoid"):
        exact = derived(loss_of("formula", kind), "float64")
        for way, dtype in [("tiles", "float64"), *((way, dtype) for dtype in DTYPES for way in WAYS)]:
            tell(f"exactness of {way}, {kind}, {dtype}")
            found = derived(loss_of(way, kind), dtype)
            errors = [((a - b).norm() / b.norm()).item() for a, b in zip(found, exact, strict=True) if b.norm() > 0]
            rows.append([kind, way, dtype, *(f"{error:.1e}" for error in errors), *[""] * (5 - len(errors))])
    head = ["", "", "type", "loss", "images", "texts", "scale", "bias"]
    return f"## Relative distance to the formula in float64, {SMALL:,} pairs\n\n{table(head, rows)}"


def derived(loss: Callable[..., Tensor], dtype: str) -> list[Tensor]:
    """Loss and gradients, in float64; embeddings are the same numbers for every type but for rounding."""
    import torch

    sides = embeddings(SMALL, dtype)
    numbers = scalars("float64" if dtype == "float64" else "float32")
    value = loss(*sides, *numbers)
    value.backward()
    grads = [torch.zeros(()) if one.grad is None else one.grad for one in (*sides, *numbers)]
    return [one.detach().double() for one in (value, *grads)]


if __name__ == "__main__":
    main()
