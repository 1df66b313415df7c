"""A language model of the Llama architecture as a graph of OpenVINO, written down node by node.

Keys and values of what was read are variables of the graph. OpenVINO's processor plugin keeps and extends them in place
and computes the attention around them at once where it finds them as they are written here (`FUSED`): groups of keys
repeated by a product with ones, not broadcast. That, and weights in few bits (`nunbit.generate.low_bits`), is what
makes a token quick. Angles of positions and the mask come from outside, so that padding on the left and conversations
that go on need nothing else.

::

    q, k = turn(x Wq), turn(x Wk)      turn(y) = y cos + rotate(y) sin      rotate((a, b)) = (-b, a)
    x += attention(q, repeat(k), repeat(v)) Wo;    x += (silu(x Wg) * x Wu) Wd        each behind an RMS norm

Shapes: B answers, T new tokens, N tokens in all, W width, H heads, G heads of keys and values, S width of a head, V
vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nunbit.engine.openvino_models import import_openvino
from nunbit.errors import UnsupportedModel
from nunbit.generate.low_bits import LowBits, find_low_bits

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

FORMAT_VERSION = 1
"""Changes with what is written down for the same weights: graphs that were kept before are then made again."""

FUSED = "ScaledDotProductAttention"
"""What stays of an attention in a compiled graph when it keeps its keys and values itself; others are taken apart."""

_KNOWN = ("llama",)


@dataclass(frozen=True, slots=True)
class LlamaSizes:
    """What the graph needs to know.

    Attributes:
        width: W.
        layers: Blocks.
        heads: H.
        groups: G, a divisor of H.
        head_size: S.
        eps: Added to the mean square in norms.
        theta: The longest wave of positions.
    """

    width: int
    layers: int
    heads: int
    groups: int
    head_size: int
    eps: float
    theta: float

    @classmethod
    def of(cls, config: Any) -> LlamaSizes:
        """Those of a configuration of `transformers`.

        Raises:
            UnsupportedModel: Another architecture, or a kind of it that is not written down here.
        """
        rope = dict(getattr(config, "rope_parameters", None) or {})
        strange = [name for name in ("attention_bias", "mlp_bias") if getattr(config, name, False)]
        if config.model_type not in _KNOWN or strange or rope.get("rope_type", "default") != "default":
            what = f"{config.model_type} with {strange or rope}" if config.model_type in _KNOWN else config.model_type
            hint = 'engine="torch" computes all'
            raise UnsupportedModel(f"openvino does not know a language model of the kind {what} here", hint=hint)
        if config.hidden_act != "silu":
            raise UnsupportedModel(f"openvino knows Llama with silu here, not with {config.hidden_act}")
        return cls(
            width=config.hidden_size,
            layers=config.num_hidden_layers,
            heads=config.num_attention_heads,
            groups=config.num_key_value_heads,
            head_size=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
            eps=config.rms_norm_eps,
            theta=rope.get("rope_theta", 10000.0),
        )

    def angles(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Cosines and sines (B, 1, T, S) of positions (B, T)."""
        waves = self.theta ** -(np.arange(0, self.head_size, 2) / self.head_size)
        turned = positions[:, None, :, None] * waves
        both = np.concatenate([turned, turned], axis=-1)
        return np.cos(both).astype(np.float32), np.sin(both).astype(np.float32)


def build_graph(sizes: LlamaSizes, state: Mapping[str, Tensor], *, loss: bool) -> Any:
    """Write the graph down.

    Weights that came from a quantized file are kept in as few bits as they had.

    Args:
        sizes: Of the model.
        state: Tensors of a ``LlamaForCausalLM``.
        loss: Others are kept in 8 bits, not in 32.

    Returns:
        An `openvino.Model`: ``inputs_embeds`` (B, T, W), ``cos`` and ``sin`` (B, 1, T, S), ``mask`` (B, 1, T, N), added
        to scores, all float32, and ``beam_idx`` (B,) int32, whose past each answer goes on from → (B, 1, V) float32,
        logits behind the last token.

    Raises:
        UnsupportedModel: A tensor is not there.
    """
    return _Writer(sizes, state, loss).model()


class _Writer:
    """Nodes of one graph."""

    def __init__(self, sizes: LlamaSizes, state: Mapping[str, Tensor], loss: bool) -> None:
        self._openvino = import_openvino()
        self._ops: Any = self._openvino.opset13
        self._sizes, self._state, self._loss = sizes, state, loss
        self._sinks: list[Any] = []

    def model(self) -> Any:
        ops, sizes = self._ops, self._sizes
        embeds = self._input("inputs_embeds", [-1, -1, sizes.width])
        cos, sin = (self._input(name, [-1, 1, -1, sizes.head_size]) for name in ("cos", "sin"))
        mask = self._input("mask", [-1, 1, -1, -1])
        beam = self._input("beam_idx", [-1], np.int32)
        batch = ops.gather(ops.shape_of(embeds), self._ints(0), self._int(0))
        shape = ops.concat([batch, self._ints(sizes.groups, 0, sizes.head_size)], 0)
        empty = ops.broadcast(ops.constant(np.float32(0)), shape)
        x = embeds
        for number in range(sizes.layers):
            x = self._block(x, number, (cos, sin, mask, beam, empty))
        last = ops.slice(x, self._ints(-1), self._ints(2**31 - 1), self._ints(1), self._ints(1))
        head = "lm_head.weight" if "lm_head.weight" in self._state else "model.embed_tokens.weight"
        logits = self._linear(self._norm(last, "model.norm.weight"), head)
        return self._openvino.Model([ops.result(logits)], self._sinks, [embeds, cos, sin, mask, beam], "llama")

    def _block(self, x: Any, number: int, inputs: tuple[Any, ...]) -> Any:
        ops, sizes, name = self._ops, self._sizes, f"model.layers.{number}."
        cos, sin, mask, beam, empty = inputs
        normed = self._norm(x, f"{name}input_layernorm.weight")
        attention = f"{name}self_attn."
        every = self._heads(self._linear(normed, *(f"{attention}{kind}_proj.weight" for kind in "qkv")))
        counts = self._ints(sizes.heads, sizes.groups, sizes.groups)
        query, keys, values = ops.variadic_split(every, self._int(1), counts).outputs()
        query = self._turn(query, cos, sin)
        keys = self._with_past(self._turn(keys, cos, sin), f"past.{number}.keys", beam, empty)
        values = self._with_past(values, f"past.{number}.values", beam, empty)
        seen = ops.scaled_dot_product_attention(query, keys, values, mask, None, False)
        joined = ops.reshape(
            ops.transpose(seen, self._ints(0, 2, 1, 3)), self._ints(0, 0, sizes.heads * sizes.head_size), True
        )
        x = ops.add(x, self._linear(joined, f"{attention}o_proj.weight"))
        normed = self._norm(x, f"{name}post_attention_layernorm.weight")
        gate = ops.swish(self._linear(normed, f"{name}mlp.gate_proj.weight"))
        wide = ops.multiply(gate, self._linear(normed, f"{name}mlp.up_proj.weight"))
        return ops.add(x, self._linear(wide, f"{name}mlp.down_proj.weight"))

    def _with_past(self, new: Any, name: str, beam: Any, empty: Any) -> Any:
        """(B, G, T, S) behind what was read before, kept, each group repeated for its heads: (B, H, N, S)."""
        ops, sizes = self._ops, self._sizes
        shape = self._openvino.PartialShape([-1, sizes.groups, -1, sizes.head_size])
        past = ops.read_value(empty, name, self._openvino.Type.f32, shape)
        now = ops.concat([ops.gather(past, beam, self._int(0)), new], 2)
        self._sinks.append(ops.assign(now, name))
        if sizes.heads == sizes.groups:
            return now
        apart = ops.reshape(now, self._ints(0, 0, 1, -1, sizes.head_size), True)
        ones = ops.constant(np.ones((1, 1, sizes.heads // sizes.groups, 1, 1), np.float32))
        return ops.reshape(ops.multiply(apart, ones), self._ints(0, sizes.heads, -1, sizes.head_size), True)

    def _turn(self, x: Any, cos: Any, sin: Any) -> Any:
        """Rotary positions (arXiv 2104.09864), pairs of numbers half a head apart."""
        ops, half = self._ops, self._sizes.head_size // 2
        first, second = (
            ops.slice(x, self._ints(start), self._ints(start + half), self._ints(1), self._ints(-1))
            for start in (0, half)
        )
        turned = ops.concat([ops.multiply(second, ops.constant(np.float32(-1))), first], -1)
        return ops.add(ops.multiply(x, cos), ops.multiply(turned, sin))

    def _heads(self, x: Any) -> Any:
        """(B, T, heads S) → (B, heads, T, S)."""
        apart = self._ops.reshape(x, self._ints(0, 0, -1, self._sizes.head_size), True)
        return self._ops.transpose(apart, self._ints(0, 2, 1, 3))

    def _norm(self, x: Any, name: str) -> Any:
        ops = self._ops
        square = ops.reduce_mean(ops.multiply(x, x), self._ints(-1), True)
        length = ops.sqrt(ops.add(square, ops.constant(np.float32(self._sizes.eps))))
        weight = ops.constant(self._numbers(name).numpy())
        return ops.multiply(ops.multiply(x, ops.divide(ops.constant(np.float32(1)), length)), weight)

    def _linear(self, x: Any, *names: str) -> Any:
        """``x`` times one matrix, or several with their rows behind one another."""
        weights = torch.cat([self._numbers(name) for name in names]).numpy()
        return self._ops.matmul(x, self._matrix(weights), False, True)

    def _numbers(self, name: str) -> Tensor:
        if name not in self._state:
            message = f"the language model has no tensor {name}"
            raise UnsupportedModel(message, hint='merge its corrections (LoRA) first, or take engine="torch"')
        return self._state[name].detach().float()

    def _matrix(self, weights: NDArray[np.float32]) -> Any:
        """(O, I) as the processor is to keep it; the plugin makes numbers of it while it multiplies."""
        few = find_low_bits(weights, loss=self._loss)
        return self._ops.constant(weights) if few is None else self._few_bits(few)

    def _few_bits(self, few: LowBits) -> Any:
        ops, stored = self._ops, few.values
        if few.bits == 4:
            pairs = stored.reshape(-1, 2)
            stored = self._openvino.Tensor(self._openvino.Type.u4, self._openvino.Shape(stored.shape))
            stored.data.reshape(-1)[:] = pairs[:, 0] | pairs[:, 1] << 4
        values = ops.convert(ops.constant(stored), "f32")
        if few.zero is not None:
            values = ops.subtract(values, ops.constant(few.zero))
        scaled = ops.multiply(values, ops.constant(few.scale))
        return ops.reshape(scaled, self._ints(len(few.values), few.values[0].size), False)

    def _input(self, name: str, shape: list[int], dtype: Any = np.float32) -> Any:
        node = self._ops.parameter(shape, dtype, name=name)
        node.output(0).get_tensor().set_names({name})
        return node

    def _ints(self, *values: int) -> Any:
        return self._ops.constant(np.array(values, np.int64))

    def _int(self, value: int) -> Any:
        return self._ops.constant(np.int64(value))
