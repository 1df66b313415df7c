"""How quick this machine multiplies matrices, and how much of that a tower gets.

Usage: python benchmarks/ceiling.py [--cores 1]

The ceiling of a precision is the quickest product of matrices of a ViT-B/16's sizes at batch 8, in several shapes, by
torch and by OpenVINO: where one of them has a poor kernel for a processor, the other seldom has. A tower's share is
what it does of its own products a second, divided by that. Softmaxes, norms, activations and copies count as no work,
so all of it is out of reach.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nunbit.text_encoder import TextConfig
    from nunbit.vision_encoder import VitConfig

ROWS = 1576
SHAPES = ((768, 3072), (3072, 768), (768, 2304))
"""Inner size and columns of a ViT-B's MLP and of its queries, keys and values."""

SECONDS = 0.5


def measure_ceilings() -> dict[str, dict[str, float]]:
    """GFLOP/s by precision and library, in as many threads as torch has."""
    ways = {
        "fp32": {"torch": _torch("float32"), "OpenVINO": _openvino("f32")},
        "bf16": {"torch": _torch("bfloat16"), "OpenVINO": _openvino("bf16")},
        "int8": {"torch": _torch_int8(), "OpenVINO": _openvino("f32", levels=255)},
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quantized tensors of torch are deprecated, not slow
        return {
            precision: {
                library: max(2e-9 * ROWS * inner * columns * _rate(run) for run, inner, columns in products)
                for library, products in libraries.items()
            }
            for precision, libraries in ways.items()
        }


def _torch(dtype: str) -> Iterator[tuple[Callable[[], Any], int, int]]:
    import torch

    for inner, columns in SHAPES:
        a, b = (torch.randn(size, inner).to(getattr(torch, dtype)) for size in (ROWS, columns))
        yield lambda a=a, b=b: torch.nn.functional.linear(a, b), inner, columns


def _torch_int8() -> Iterator[tuple[Callable[[], Any], int, int]]:
    """The bare product into int32, and oneDNN's linear layer, which rounds its results to int8."""
    import torch

    for inner, columns in SHAPES:
        a, b = (torch.randint(-127, 127, size, dtype=torch.int8) for size in ((ROWS, inner), (inner, columns)))
        yield lambda a=a, b=b: torch._int_mm(a, b), inner, columns
        if "onednn" in torch.backends.quantized.supported_engines:
            torch.backends.quantized.engine = "onednn"
            layer = torch.ao.nn.quantized.Linear(inner, columns)
            scales, zeros = torch.full((columns,), 0.05), torch.zeros(columns, dtype=torch.long)
            weight = torch.quantize_per_channel(torch.randn(columns, inner), scales, zeros, 0, torch.qint8)
            layer.set_weight_bias(weight, torch.zeros(columns))
            layer.scale = 1.0
            given = torch.quantize_per_tensor(torch.randn(ROWS, inner), 0.05, 128, torch.quint8)
            yield lambda layer=layer, given=given: layer(given), inner, columns


def _openvino(precision: str, levels: int = 0) -> Iterator[tuple[Callable[[], Any], int, int]]:
    """A product with constant weights; rounded to so many levels, if any, on the way in, which is part of the time."""
    import numpy as np
    import torch
    from nunbit.engine.openvino_models import import_openvino

    import_openvino()  # without its telemetry
    import openvino.opset13 as ops
    from openvino import Core, Model

    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    for inner, columns in SHAPES:
        given = ops.parameter((ROWS, inner), np.float32)
        weights = ops.constant(np.random.default_rng(0).uniform(-1, 1, (columns, inner)).astype(np.float32))
        factors = [ops.fake_quantize(x, -1.0, 1.0, -1.0, 1.0, levels) if levels else x for x in (given, weights)]
        model = Model([ops.matmul(*factors, transpose_a=False, transpose_b=True)], [given])
        request = Core().compile_model(model, "CPU", settings).create_infer_request()
        inputs = [np.random.default_rng(1).uniform(-1, 1, (ROWS, inner)).astype(np.float32)]
        yield lambda request=request, inputs=inputs: request.infer(inputs, share_inputs=True), inner, columns


def _rate(run: Callable[[], Any]) -> float:
    """Runs a second at the quickest."""
    run()
    quickest, end = float("inf"), time.perf_counter() + SECONDS
    while (start := time.perf_counter()) < end:
        run()
        quickest = min(quickest, time.perf_counter() - start)
    return 1 / quickest


def picture_flops(config: VitConfig) -> float:
    """Two for each multiply-add of the products that one picture takes in a ViT with a class token."""
    patches = config.grid_size**2
    tokens = patches + config.class_token
    first = patches * 3 * config.patch_size**2 * config.hidden_size
    last = config.hidden_size * (config.projection_size or 0)
    sizes = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    return 2 * (first + _blocks(tokens, *sizes) + last)


def text_flops(config: TextConfig, tokens: int) -> float:
    """The same for a text of so many tokens, start and end among them."""
    sizes = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    return 2 * (_blocks(tokens, *sizes) + config.hidden_size * config.projection_size)


def _blocks(tokens: int, width: int, inside: int, layers: int) -> float:
    linear = tokens * (4 * width**2 + 2 * width * inside)
    attention = 2 * tokens**2 * width
    return layers * (linear + attention)


def main() -> None:
    """Print the ceilings."""
    from side_by_side import pin

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cores", type=int, default=1)
    pin(parser.parse_args().cores)
    for precision, rates in measure_ceilings().items():
        print(f"{precision}: {', '.join(f'{library} {rate:,.0f} GFLOP/s' for library, rate in rates.items())}")


if __name__ == "__main__":
    main()
