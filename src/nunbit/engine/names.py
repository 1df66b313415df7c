"""What engines are called, and how exact each has to be."""

from __future__ import annotations

import difflib
import os
from typing import Literal, TypeAlias

from nunbit.errors import UsageError

Precision: TypeAlias = Literal["fp32", "bf16", "int8"]

AUTO, TORCH, ONNX = "auto", "torch", "onnxruntime"
OPENVINO: dict[str, Precision | None] = {
    "openvino": None,
    "openvino-fp32": "fp32",
    "openvino-bf16": "bf16",
    "openvino-int8": "int8",
}
"""By name, the precision that it computes pictures in; None for the quickest that is exact enough."""

ENGINES = (AUTO, TORCH, *OPENVINO, ONNX)
VARIABLE = "NUNBIT_ENGINE"

COSINE_FLOOR: dict[Precision, float] = {"fp32": 0.99999, "bf16": 0.9999, "int8": 0.999}
"""The least mean cosine to torch in float32 over the check inputs. An engine below is refused."""

FARTHEST = 5
"""How many times as far from 1 as that mean the cosine of a single check input may be."""

TOP1_TOLERANCE = 0.5
"""The most, in points of 100, that zero-shot accuracy may differ from torch's."""


def refusal(mean: float, lowest: float, precision: Precision) -> str:
    """Why an engine is not exact enough; empty where it is.

    Args:
        mean: Cosine to torch over the check inputs.
        lowest: Of a single one.
        precision: What it computes in.
    """
    floor = COSINE_FLOOR[precision]
    deepest = 1 - FARTHEST * (1 - floor)
    if not mean >= floor:  # nor where it is no number
        return f"cosine {mean:.6f} to torch, at least {floor} is asked for"
    if not lowest >= deepest:
        return f"cosine {lowest:.6f} to torch for one input, at least {deepest:g} is asked for"
    return ""


def requested_engine(name: str | None) -> str:
    """The engine's name, from the caller, or else from ``$NUNBIT_ENGINE``, or else ``auto``.

    Raises:
        UsageError: There is no such engine.
    """
    engine = name or os.environ.get(VARIABLE) or AUTO
    if engine not in ENGINES:
        close = difflib.get_close_matches(engine, ENGINES, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"one of: {', '.join(ENGINES)}"
        raise UsageError(f"there is no engine {engine!r}", hint=hint)
    return engine
