"""The same tensors under two naming schemes: rules that go both ways.

A rule ties names of this project to names in a file, with the rearrangement between them: queries, keys and values
fused or apart, a projection transposed or not. One list of rules both loads and saves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

Rearrange: TypeAlias = Callable[[list[Tensor]], list[Tensor]]


def _as_they_are(tensors: list[Tensor]) -> list[Tensor]:
    return tensors


@dataclass(frozen=True, slots=True)
class Rule:
    """Some tensors here and the same numbers in a file.

    Attributes:
        ours: Names in the module.
        theirs: Names in the file.
        load: From the file's arrangement to ours.
        save: The inverse.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    load: Rearrange = _as_they_are
    save: Rearrange = _as_they_are


def rename(ours: str, theirs: str) -> Rule:
    """The same tensor by another name."""
    return Rule((ours,), (theirs,))


def rename_layer(ours: str, theirs: str, *, bias: bool = True) -> list[Rule]:
    """Weight and bias of a layer or norm."""
    kinds = ("weight", "bias") if bias else ("weight",)
    return [rename(f"{ours}.{kind}", f"{theirs}.{kind}") for kind in kinds]


def transpose(ours: str, theirs: str) -> Rule:
    """A matrix that the file keeps the other way round."""
    flip: Rearrange = lambda tensors: [tensors[0].T]  # noqa: E731
    return Rule((ours,), (theirs,), flip, flip)


def reshape(ours: str, theirs: str, our_shape: Sequence[int], their_shape: Sequence[int]) -> Rule:
    """The same numbers in the same order, in another shape; -1 stands for whatever is left."""
    here, there = tuple(our_shape), tuple(their_shape)
    return Rule((ours,), (theirs,), lambda tensors: [tensors[0].reshape(here)], lambda t: [t[0].reshape(there)])


def fuse(ours: str, theirs: Sequence[str]) -> Rule:
    """One tensor here that the file keeps in equal parts, stacked along the first axis."""
    count = len(theirs)
    return Rule((ours,), tuple(theirs), lambda tensors: [torch.cat(tensors)], lambda t: list(t[0].chunk(count)))


def part(ours: tuple[str, str], theirs: str) -> Rule:
    """Two tensors here, a third and two thirds of one that the file stacks along the first axis."""

    def load(tensors: list[Tensor]) -> list[Tensor]:
        whole = tensors[0]
        first = whole.shape[0] // 3
        return [whole[:first], whole[first:]]

    return Rule(ours, (theirs,), load, lambda tensors: [torch.cat(tensors)])


def to_theirs(state: Mapping[str, Tensor], rules: Sequence[Rule]) -> dict[str, Tensor]:
    """Rearrange a module's tensors as a file keeps them; also on the meta device, to learn names and shapes."""
    out: dict[str, Tensor] = {}
    for rule in rules:
        out |= zip(rule.theirs, rule.save([state[name] for name in rule.ours]), strict=True)
    return out


def to_ours(tensors: Mapping[str, Tensor], rules: Sequence[Rule]) -> dict[str, Tensor]:
    """Rearrange a file's tensors as the module keeps them."""
    out: dict[str, Tensor] = {}
    for rule in rules:
        out |= zip(rule.ours, rule.load([tensors[name] for name in rule.theirs]), strict=True)
    return out
