"""A student beside its teacher: what it costs, how quick it is, how often it says the same.

Shapes: N pictures, B batch, M labels.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nunbit.encode import Encoder
from nunbit.images import open_image

if TYPE_CHECKING:
    from nunbit.types import FloatArray

_ROUNDS = 7
_BATCHES = 4  # a round


@dataclass(frozen=True, slots=True)
class Cost:
    """What a picture tower takes.

    Attributes:
        gmacs: Multiplications and additions of products and convolutions for one picture, in billions.
        parameters: Numbers that it reads.
    """

    gmacs: float
    parameters: int

    @property
    def megabytes(self) -> float:
        """Of its parameters in float32."""
        return 4e-6 * self.parameters


@dataclass(frozen=True, slots=True)
class Comparison:
    """A student beside its teacher, each by its engine.

    Attributes:
        teacher: Its cost.
        student: Its cost.
        engines: What computed, the teacher's first.
        rates: Pictures a second, the teacher's first: from normalized pixels to embeddings, medians of rounds.
        speedup: Median of the rounds' ratios.
        cosine: Mean over held-out pictures.
        same_label: Percent of them that get the same first label.
        pictures: How many were held out.
        labels: How many labels there were.
    """

    teacher: Cost
    student: Cost
    engines: tuple[str, str]
    rates: tuple[float, float]
    speedup: float
    cosine: float
    same_label: float
    pictures: int
    labels: int

    def lines(self) -> dict[str, str]:
        """In words, for the card and the terminal."""
        teacher, student = self.teacher, self.student
        compute = f"{student.gmacs:.3f} GMACs a picture, the teacher's {teacher.gmacs:.3f}"
        size = f"{student.parameters / 1e6:.2f} M ({student.megabytes:.1f} MB), the teacher's"
        speed = f"{self.rates[1]:.0f} pictures/s, the teacher's {self.rates[0]:.0f}"
        return {
            "compute": f"{compute}: {student.gmacs / teacher.gmacs:.1%}",
            "parameters": f"{size} {teacher.parameters / 1e6:.2f} M ({teacher.megabytes:.1f} MB)",
            "speed": f"{speed}: {self.speedup:.1f} x ({' and '.join(dict.fromkeys(self.engines))})",
            "agreement": f"cosine {self.cosine:.3f}, the same first of {self.labels} labels for "
            f"{self.same_label:.1f} % of {self.pictures} held-out pictures",
        }


def compare(teacher: Encoder, student: Encoder, held_out: Sequence[Path], labels: Sequence[str]) -> Comparison:
    """Measure both on the same pictures, in turns.

    Args:
        teacher: As it was asked.
        student: With the same engine.
        held_out: Pictures that taught nothing.
        labels: Two or more.
    """
    words = teacher.encode_text(labels)
    rows = [encoder.encode_image(held_out) for encoder in (teacher, student)]
    firsts = [(found @ words.T).argmax(1) for found in rows]
    rates, speedup = _rates(teacher, student, held_out)
    return Comparison(
        teacher=picture_cost(teacher),
        student=picture_cost(student),
        engines=(teacher.engine.name, student.engine.name),
        rates=rates,
        speedup=speedup,
        cosine=float(np.einsum("nd,nd->n", *rows).mean()),
        same_label=100 * float((firsts[0] == firsts[1]).mean()),
        pictures=len(held_out),
        labels=len(labels),
    )


def picture_cost(encoder: Encoder) -> Cost:
    """Count what an encoder's picture tower computes and reads, whatever engine runs it.

    Raises:
        UnsupportedModel: It takes pictures of any proportions, so that there is no one cost.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves
    from torch.utils.flop_counter import FlopCounterMode

    read: set[int] = set()

    class Reading(TorchDispatchMode):  # type: ignore[no-untyped-call]
        """Notes where the tensors lie that are read."""

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            read.update(one.data_ptr() for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor))
            return function(*args, **(kwargs or {}))

    program = encoder.towers.programs()["image"]
    reading = Reading()  # type: ignore[no-untyped-call]
    plain = sdpa_kernel(SDPBackend.MATH)  # products of fused attention are not counted
    with FlopCounterMode(display=False) as counter, reading, torch.inference_mode(), plain:
        program.embed(program.example)
    products = counter.get_total_flops() / 2 / len(program.example)
    # Of a dual encoder, the modules of a program hold the text tower, too.
    own = (parameter for module in program.modules for parameter in module.parameters())
    return Cost(products / 1e9, sum(one.numel() for one in own if one.data_ptr() in read))


def _rates(teacher: Encoder, student: Encoder, pictures: Sequence[Path]) -> tuple[tuple[float, float], float]:
    """Pictures a second of both, and the ratio; in turns, so that a busy moment hits both."""
    batches = [(encoder, _batch(encoder, pictures)) for encoder in (teacher, student)]
    rounds = [[_rate(encoder, batch) for encoder, batch in batches] for _ in range(_ROUNDS + 1)][1:]  # a warm-up
    slow, quick = (statistics.median(round_[place] for round_ in rounds) for place in (0, 1))
    return (slow, quick), statistics.median(after / before for before, after in rounds)


def _batch(encoder: Encoder, pictures: Sequence[Path]) -> FloatArray:
    size = encoder.engine.batch_size
    pixels = [encoder.preprocessing(open_image(path)[0]) for path in pictures[:size]]
    return np.stack([pixels[number % len(pixels)] for number in range(size)])


def _rate(encoder: Encoder, batch: FloatArray) -> float:
    start = time.perf_counter()
    for _ in range(_BATCHES):
        encoder.encode_pixels(batch)
    return _BATCHES * len(batch) / (time.perf_counter() - start)
