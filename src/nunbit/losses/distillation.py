"""Distillation losses: how far a student's picture embeddings are from those of its teacher.

Each is 0 where the student answers as the teacher does, and at least 0 anywhere. They know no model, and need no label.

Shapes: N pictures, M texts, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from nunbit.errors import UsageError


def feature_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """How far each embedding is from the teacher's (FitNets, arXiv 1412.6550; on unit rows CLIP-KD, arXiv 2307.12732).

    ``mean over i of  1 - student_i @ teacher_i  =  mean over i of  |student_i - teacher_i|² / 2``

    Args:
        student: (N, D) unit rows.
        teacher: (N, D) unit rows of the same pictures.

    Returns:
        A scalar in [0, 2].
    """
    _check_rows(student, teacher)
    return (student - teacher).square().sum(-1).mean() / 2  # exact near 0, where 1 - cosine rounds


def similarity_distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Which pictures of a batch are alike, and how much (similarity distributions, SEED, arXiv 2101.04731).

    ``mean over i of  KL(p_i || q_i),   p_i = softmax over j != i of  teacher_i @ teacher_j / temperature,``
    and q_i the same of the student. A picture's similarity with itself is 1 for both and would hide the others.

    Args:
        student: (N, D) unit rows, N of at least 2.
        teacher: (N, D') unit rows of the same pictures; D' may be another width.
        temperature: Positive; small ones look at the nearest pictures alone.

    Returns:
        A scalar, at least 0.
    """
    if len(student) != len(teacher) or len(student) < 2:
        raise UsageError(f"{len(student)} pictures of the student, {len(teacher)} of the teacher: expected two or more")
    return _divergence(_other_similarities(student) / temperature, _other_similarities(teacher) / temperature)


def label_distillation(student: Tensor, teacher: Tensor, texts: Tensor, logit_scale: float) -> Tensor:
    """Which labels fit each picture (Hinton et al., arXiv 1503.02531; the classifier is the teacher's text embeddings).

    ``mean over i of  KL(p_i || q_i),   p_i = softmax over labels of  logit_scale * teacher_i @ texts.T``
    and q_i the same of the student.

    Args:
        student: (N, D) unit rows.
        teacher: (N, D) unit rows of the same pictures.
        texts: (M, D) unit rows, one a label, M of at least 2.
        logit_scale: Positive; the teacher's own divided by a temperature.

    Returns:
        A scalar, at least 0.
    """
    _check_rows(student, teacher)
    if texts.shape[-1] != student.shape[-1] or len(texts) < 2:
        raise UsageError(f"labels are {tuple(texts.shape)}, expected two or more of width {student.shape[-1]}")
    return _divergence(logit_scale * student @ texts.T, logit_scale * teacher @ texts.T)


def _other_similarities(rows: Tensor) -> Tensor:
    """(N, D) → (N, N - 1): cosines with all others."""
    count = len(rows)
    others = ~torch.eye(count, dtype=torch.bool, device=rows.device)
    return (rows @ rows.T)[others].view(count, count - 1)


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean KL divergence of softmaxes over rows of logits."""
    return functional.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), reduction="batchmean", log_target=True)


def _check_rows(student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape:
        message = f"the student's rows are {tuple(student.shape)}, the teacher's {tuple(teacher.shape)}"
        raise UsageError(message, hint="a student has the width of its teacher's space")
