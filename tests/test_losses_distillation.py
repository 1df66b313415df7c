"""Distillation losses are their formulas, 0 where the student is its teacher, and their gradients are their own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from nunbit.errors import UsageError
from nunbit.losses import feature_distillation, label_distillation, similarity_distillation


def unit_rows(count: int, width: int = 8, *, seed: int = 0) -> torch.Tensor:
    rows = torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return functional.normalize(rows, dim=-1).requires_grad_(True)


def softmax(values: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in values)
    return [math.exp(value) / total for value in values]


def divergence(student: list[float], teacher: list[float]) -> float:
    pairs = zip(softmax(student), softmax(teacher), strict=True)
    return sum(p * math.log(p / q) for q, p in pairs)


def test_losses_are_their_formulas() -> None:
    student, teacher, texts = unit_rows(5), unit_rows(5, seed=1), unit_rows(3, seed=2)
    s, t, w = (rows.detach().numpy() for rows in (student, teacher, texts))
    cosines = [a @ b for a, b in zip(s, t, strict=True)]
    assert float(feature_distillation(student, teacher).detach()) == pytest.approx(1 - np.mean(cosines), abs=1e-12)
    others = [[j for j in range(5) if j != i] for i in range(5)]
    expected = np.mean(
        [divergence([s[i] @ s[j] / 0.2 for j in row], [t[i] @ t[j] / 0.2 for j in row]) for i, row in enumerate(others)]
    )
    assert float(similarity_distillation(student, teacher, 0.2).detach()) == pytest.approx(expected, abs=1e-12)
    expected = np.mean([divergence(list(7 * w @ a), list(7 * w @ b)) for a, b in zip(s, t, strict=True)])
    assert float(label_distillation(student, teacher, texts, 7.0).detach()) == pytest.approx(expected, abs=1e-12)


def test_a_student_that_is_its_teacher_has_no_loss_and_no_gradient() -> None:
    rows, texts = unit_rows(6), unit_rows(4, seed=1).detach()
    teacher = rows.detach().clone()
    for loss in (
        feature_distillation(rows, teacher),
        similarity_distillation(rows, teacher, 0.1),
        label_distillation(rows, teacher, texts, 20.0),
    ):
        (gradient,) = torch.autograd.grad(loss, rows)
        assert float(loss.detach()) == pytest.approx(0, abs=1e-12)
        assert float(gradient.abs().max()) < 1e-12


def test_gradients_are_those_of_the_values() -> None:
    student, teacher, texts = unit_rows(4), unit_rows(4, seed=1).detach(), unit_rows(3, seed=2).detach()
    assert torch.autograd.gradcheck(lambda rows: feature_distillation(rows, teacher), student)
    assert torch.autograd.gradcheck(lambda rows: similarity_distillation(rows, teacher, 0.2), student)
    assert torch.autograd.gradcheck(lambda rows: label_distillation(rows, teacher, texts, 7.0), student)


def test_rows_that_cannot_be_compared_are_told() -> None:
    with pytest.raises(UsageError, match=r"rows are \(3, 8\), the teacher's \(4, 8\)"):
        feature_distillation(unit_rows(3), unit_rows(4))
    with pytest.raises(UsageError, match="expected two or more"):
        similarity_distillation(unit_rows(1), unit_rows(1), 0.1)
    with pytest.raises(UsageError, match="two or more of width 8"):
        label_distillation(unit_rows(3), unit_rows(3), unit_rows(1), 1.0)
