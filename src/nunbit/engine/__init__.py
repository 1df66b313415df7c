"""One encoder, several engines that must agree: torch, OpenVINO (float32, bfloat16, int8), ONNX Runtime."""

from nunbit.engine.names import AUTO, ENGINES, TORCH
from nunbit.engine.opening import open_engine

__all__ = ["AUTO", "ENGINES", "TORCH", "open_engine"]
