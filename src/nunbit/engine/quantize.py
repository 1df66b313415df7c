"""Post-training quantization: an OpenVINO model in float32 → the same model with 8-bit products.

Every product of activations with constant weights (linear maps, convolutions) gets its activations rounded to 8 bits
over a range seen on calibration pictures, and its weights rounded to 8 bits with a scale for each output channel::

    x q(w)  ->  q(x / s) q(s w)        s_j = max|x_j|^a / max|w_j|^(1 - a)

The factor ``s`` moves the difficulty of a few large activation channels into the weights (SmoothQuant, arXiv
2211.10438). OpenVINO then computes such a product in integers.

Shapes: B batch, K input channels, N output channels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from nunbit.types import FloatArray

SMOOTHNESS = 0.5
"""``a`` above, for activations of either sign, which is where the large channels are."""

_LEVELS = 256
_PRODUCTS = ("MatMul", "Convolution", "GroupConvolution")


@dataclass(frozen=True, slots=True)
class Ranges:
    """What was seen of the input of one product: smallest and largest value of each channel, (K,) float32."""

    low: FloatArray
    high: FloatArray


def quantizable(model: Any) -> list[Any]:
    """The products of activations with constant weights, in the order in which they are computed.

    Products of one row a picture (poolings, projections) are left out: they take no time, and OpenVINO 2026.4 scales
    the channels of a matrix of two axes wrongly.

    Args:
        model: An `openvino.Model`.
    """
    return [
        node
        for node in model.get_ordered_ops()
        if node.get_type_name() in _PRODUCTS
        and node.input_value(1).get_node().get_type_name() == "Constant"
        and node.input_value(0).get_partial_shape().rank.get_length() > 2
        and (node.get_type_name() != "MatMul" or node.input_value(1).get_partial_shape().rank.get_length() == 2)
    ]


def observe(model: Any, batches: Iterable[FloatArray]) -> dict[str, Ranges]:
    """Run a model and note the ranges of its products' inputs.

    Args:
        model: An `openvino.Model` with one input.
        batches: Its inputs, (B, ...) float32; at least one.

    Returns:
        Ranges by the name of the product's node: means over batches, so that one odd picture does not settle them.
    """
    import openvino
    from openvino import opset13 as ops

    watched = model.clone()
    nodes = quantizable(watched)
    sources: list[Any] = []
    for node in nodes:
        source = node.input_value(0)
        rank = source.get_partial_shape().rank.get_length()
        channel = _channel_axis(node, rank)
        others = ops.constant(np.array([axis for axis in range(rank) if axis != channel], np.int64))
        sources += [ops.reduce_min(source, others).output(0), ops.reduce_max(source, others).output(0)]
    results = [ops.result(source) for source in sources]
    probe = openvino.Model(results, watched.get_parameters())
    request = openvino.Core().compile_model(probe, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    seen: list[list[FloatArray]] = []
    for batch in batches:
        outputs = request.infer({0: batch})
        seen.append([np.array(outputs[number]) for number in range(len(sources))])
    means = [np.mean([row[number] for row in seen], axis=0) for number in range(len(sources))]
    return {
        node.get_friendly_name(): Ranges(means[2 * number], means[2 * number + 1]) for number, node in enumerate(nodes)
    }


def quantize(model: Any, ranges: dict[str, Ranges], *, keep: Collection[str] = ()) -> Any:
    """Make an 8-bit copy of a model.

    Args:
        model: An `openvino.Model` in float32.
        ranges: As `observe` gives them for this model.
        keep: Names of products that stay in float32.

    Returns:
        A new `openvino.Model`.
    """
    copy = model.clone()
    for node in quantizable(copy):
        name = node.get_friendly_name()
        if name not in keep:
            _quantize_product(node, ranges[name])
    copy.validate_nodes_and_infer_types()
    return copy


def _quantize_product(node: Any, seen: Ranges) -> None:
    from openvino import opset13 as ops

    source, weights = node.input_value(0), node.input_value(1).get_node().data.astype(np.float32)
    rank = source.get_partial_shape().rank.get_length()
    low, high = seen.low, seen.high
    matrix = node.get_type_name() == "MatMul"
    if matrix and low.min() < 0:
        factor = _smoothing(seen, weights, transposed=_transposed(node))
        shape = [-1 if axis == _channel_axis(node, rank) else 1 for axis in range(rank)]
        source = ops.multiply(source, ops.constant((1 / factor).reshape(shape))).output(0)
        weights = weights * (factor[None, :] if _transposed(node) else factor[:, None])
        low, high = low / factor, high / factor
    node.input(0).replace_source_output(_round_activations(source, float(low.min()), float(high.max())))
    node.input(1).replace_source_output(_round_weights(weights, _output_axes(node, weights.ndim)))


def _smoothing(seen: Ranges, weights: FloatArray, *, transposed: bool) -> FloatArray:
    """``s``, (K,) float32."""
    activations = np.maximum(np.abs(seen.low), np.abs(seen.high))
    largest = np.abs(weights).max(axis=0 if transposed else 1)
    tiny = np.float32(1e-5)
    factor = np.maximum(activations, tiny) ** SMOOTHNESS / np.maximum(largest, tiny) ** (1 - SMOOTHNESS)
    factor = np.clip(factor / np.median(factor), 1e-3, 1e3)
    return np.asarray(factor, np.float32)


def _round_activations(source: Any, low: float, high: float) -> Any:
    from openvino import opset13 as ops

    if low >= 0:
        low = 0.0
    else:  # symmetric, so that zero is one of the levels
        bound = max(-low, high)
        low, high = -bound * 128 / 127, bound
    high = max(high, low + 1e-6)
    limits = [ops.constant(np.float32(value)) for value in (low, high, low, high)]
    return ops.fake_quantize(source, *limits, _LEVELS).output(0)


def _round_weights(weights: FloatArray, axes: tuple[int, ...]) -> Any:
    """8-bit integers, and what they are to be multiplied with."""
    from openvino import opset13 as ops

    others = tuple(axis for axis in range(weights.ndim) if axis not in axes)
    scale = np.maximum(np.abs(weights).max(axis=others, keepdims=True), 1e-12) / np.float32(127)
    integers = np.rint(weights / scale).astype(np.int8)
    widened = ops.convert(ops.constant(integers), np.float32)
    return ops.multiply(widened, ops.constant(scale.astype(np.float32))).output(0)


def _transposed(node: Any) -> bool:
    return bool(node.get_attributes()["transpose_b"])


def _channel_axis(node: Any, rank: int) -> int:
    """Axis of a product's input that it sums over, or of which one part is summed over (grouped convolutions)."""
    if node.get_type_name() != "MatMul":
        return 1
    return rank - 2 if node.get_attributes()["transpose_a"] else rank - 1


def _output_axes(node: Any, rank: int) -> tuple[int, ...]:
    """Axes of the weights that count output channels."""
    kind = node.get_type_name()
    if kind == "MatMul":
        return (rank - 2,) if _transposed(node) else (rank - 1,)
    return (0,) if kind == "Convolution" else (0, 1)
