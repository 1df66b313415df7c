"""The language model on OpenVINO: the same answers.

Shapes: B answers, T new tokens, N tokens in all, W width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nunbit.cores import usable_cores
from nunbit.engine.machine import this_machine
from nunbit.engine.names import AUTO, TORCH, requested_engine
from nunbit.engine.openvino_models import import_openvino
from nunbit.errors import UsageError
from nunbit.generate.decoding import rest_of, room_of
from nunbit.generate.llama_graph import LlamaSizes, Precision, build_graph
from nunbit.generate.prefix import Key, keys_of, shared_prefix
from nunbit.vlm.batching import Sample, collate
from nunbit.vlm.model import VisionLanguageModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nunbit.language_model import LanguageModel

_NEVER = -1e30  # added to scores of what is not looked at; minus infinity would leave padding without any number


class OpenVinoEngine:
    """A language model of the Llama architecture, compiled for this processor.

    Args:
        language_model: Its weights are copied.
        precision: ``float32``: as torch computes it, to rounding. ``bfloat16``: weights in half the memory, products in
            bfloat16 where the processor has it. ``int8``: weights in a quarter of the memory, products in float32.

    Attributes:
        keys: What was read of the one conversation that is remembered.

    Raises:
        UnsupportedModel: Another architecture.
        ModelError: OpenVINO is not installed.
    """

    def __init__(self, language_model: LanguageModel, precision: Precision = "float32") -> None:
        self._sizes = LlamaSizes.of(language_model.model.config)
        openvino = import_openvino()
        graph = build_graph(self._sizes, language_model.model.state_dict(), precision)
        products = "bf16" if precision == "bfloat16" else "f32"
        settings = {
            "INFERENCE_PRECISION_HINT": products,
            "KV_CACHE_PRECISION": products,  # else in 8 bits
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",  # else what is multiplied with weights in few bits is rounded, too
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": usable_cores(),
            "ENABLE_CPU_PINNING": False,
        }
        self._request: Any = openvino.Core().compile_model(graph, "CPU", settings).create_infer_request()
        self._tensor: Any = openvino.Tensor
        self.keys: list[Key] = []

    def read(self, inputs_embeds: Tensor, attention_mask: Tensor) -> Tensor:
        """Go on from what was read before.

        Args:
            inputs_embeds: (B, T, W) floating, what is new.
            attention_mask: (B, N) bool, of what was read before and of what is new; padding stands on the left.

        Returns:
            (B, V) float32, logits of what comes next.
        """
        seen = attention_mask.cpu().numpy().astype(bool)
        batch, new = inputs_embeds.shape[:2]
        positions = np.maximum(seen.cumsum(1) - 1, 0)[:, -new:]
        places = np.arange(seen.shape[1])
        allowed = seen[:, None] & (places[None, None] <= places[-new:][None, :, None])  # (B, T, N)
        mask = np.where(allowed, 0, _NEVER).astype(np.float32)[:, None]
        inputs = [inputs_embeds.float().cpu().numpy(), *self._sizes.angles(positions), mask]
        self._request.infer([*map(np.ascontiguousarray, inputs), np.arange(batch, dtype=np.int32)])
        logits: NDArray[np.float32] = self._request.get_output_tensor(0).data[:, -1]
        return torch.from_numpy(logits.copy())

    def forget(self, length: int = 0) -> None:
        """Keep so many of the tokens that were read, and forget those behind."""
        self.keys = self.keys[:length]
        if length == 0:
            self._request.reset_state()
            return
        for variable in self._request.query_state():
            kept = np.ascontiguousarray(variable.state.data[:, :, :length])
            variable.state = self._tensor(kept)


def choose_engine(language_model: LanguageModel, name: str | None = None) -> OpenVinoEngine | None:
    """What computes a language model.

    Torch unless OpenVINO is asked for: what it gains a token does not yet pay for compiling
    (``benchmarks/vlm_decoding.py``).

    Args:
        language_model: Whose weights are copied where OpenVINO computes.
        name: ``torch`` or ``auto``; ``openvino-fp32``, ``openvino-bf16``; ``openvino``: in bfloat16 where the processor
            has it. None: what ``$NUNBIT_ENGINE`` says, or ``auto``.

    Returns:
        The engine; None for torch.

    Raises:
        UsageError: There is no such engine, or not for language models.
        UnsupportedModel: OpenVINO does not know the architecture here.
    """
    wanted = requested_engine(name)
    if wanted in (AUTO, TORCH):
        return None
    if wanted not in ("openvino", "openvino-fp32", "openvino-bf16"):
        raise UsageError(f"{wanted} computes no language models", hint="torch, openvino-fp32 or openvino-bf16")
    half = wanted == "openvino-bf16" or (wanted == "openvino" and this_machine().has_bf16)
    return OpenVinoEngine(language_model, "bfloat16" if half else "float32")


class OpenVinoDecoding:
    """As `nunbit.generate.decoding.CausalDecoding`, on OpenVINO.

    Args:
        model: Its eye and projector look, its tokens' vectors are taken.
        samples: Conversations that end with a question.
        engine: Reads and answers; what one conversation has in common with the one before is not read again.

    Raises:
        UsageError: A conversation is longer than the model can read.
    """

    def __init__(self, model: VisionLanguageModel, samples: Sequence[Sample], engine: OpenVinoEngine) -> None:
        self._model, self._samples, self._engine = model, samples, engine
        self.room = room_of(model, max(len(sample.encoded.input_ids) for sample in samples))
        self._mask = torch.zeros(0)

    @torch.inference_mode()
    def first(self) -> Tensor:
        """As `Decoding.first`."""
        engine, samples, read = self._engine, list(self._samples), 0
        keys = keys_of(samples[0]) if len(samples) == 1 else []
        if keys:
            read = shared_prefix(keys, engine.keys)
            samples = [rest_of(samples[0], read)]
        engine.forget(read)
        inputs = collate(samples, pad="left")
        assert inputs.attention_mask is not None
        self._mask = torch.cat([torch.ones(len(samples), read, dtype=torch.bool), inputs.attention_mask], dim=1)
        device = next(self._model.parameters()).device
        embedded = self._model.embed(inputs.input_ids.to(device), self._model.image_tokens(inputs.to(device)))
        logits = engine.read(embedded, self._mask)
        engine.keys = keys
        return logits

    @torch.inference_mode()
    def next(self, tokens: Sequence[int]) -> Tensor:
        """As `Decoding.next`."""
        ids = torch.tensor(tokens)[:, None]
        self._mask = torch.cat([self._mask, torch.ones_like(ids, dtype=torch.bool)], dim=1)
        language_model = self._model.language_model
        logits = self._engine.read(language_model.embed(ids.to(next(self._model.parameters()).device)), self._mask)
        if self._engine.keys:
            self._engine.keys.append(tokens[0])
        return logits

    def close(self) -> None:
        """As `Decoding.close`: the engine remembers by itself."""
