"""The language model on OpenVINO: the same answers.

Shapes: B answers, T new tokens, N tokens in all, W width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nunbit.cores import usable_cores
from nunbit.engine.machine import this_machine
from nunbit.engine.names import AUTO, COSINE_FLOOR, OPENVINO, TORCH, Precision, requested_engine
from nunbit.engine.openvino_models import import_openvino
from nunbit.errors import ModelError, UsageError
from nunbit.generate.decoding import rest_of, room_of
from nunbit.generate.kept_graphs import fingerprint, open_graph
from nunbit.generate.llama_graph import LlamaSizes, build_graph
from nunbit.generate.openvino_eye import OpenVinoEye
from nunbit.generate.prefix import Key, keys_of, shared_prefix
from nunbit.vlm.batching import Sample, collate
from nunbit.vlm.model import VisionLanguageModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nunbit.language_model import LanguageModel

_CHECKS, _CHECKED_TOKENS = 4, 24
_NEVER = -1e30  # added to scores of what is not looked at; minus infinity would leave padding without any number


class OpenVinoEngine:
    """A language model of the Llama architecture, compiled for this processor.

    Args:
        model: Its weights are copied.
        precision: ``fp32``: as torch computes it, to rounding. ``bf16``: weights in half the memory, products in
            bfloat16 where the processor has it. ``int8``: weights in a quarter of the memory, products in float32:
            OpenVINO 2026.4 is now and then wrong in bfloat16 where other models ran before in the same process.
        eye: Looks at pictures in place of the model's.

    Attributes:
        keys: What was read of the one conversation that is remembered.
        eye: As given.

    Raises:
        UnsupportedModel: Another architecture.
        ModelError: OpenVINO is not installed.
    """

    def __init__(
        self, model: LanguageModel, precision: Precision = "fp32", eye: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        self._sizes = LlamaSizes.of(model.model.config)
        state = model.model.state_dict()
        name = f"llama-{fingerprint(state.items(), self._sizes, precision)}"
        products = "bf16" if precision == "bf16" and this_machine().has_bf16 else "f32"
        settings = {
            "INFERENCE_PRECISION_HINT": products,
            "KV_CACHE_PRECISION": products,  # else in 8 bits
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",  # else what is multiplied with weights in few bits is rounded, too
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": usable_cores(),
            "ENABLE_CPU_PINNING": False,
        }
        openvino = import_openvino()
        compiled = open_graph(
            name,
            lambda: build_graph(self._sizes, state, precision),
            lambda graph: openvino.Core().compile_model(graph, "CPU", settings),
        )
        self._request: Any = compiled.create_infer_request()
        self._tensor: Any = openvino.Tensor
        self.keys: list[Key] = []
        self.eye = eye

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


def choose_engine(
    model: VisionLanguageModel, name: str | None = None, tell: Callable[[str], None] = lambda _: None
) -> OpenVinoEngine | None:
    """What computes a vision-language model.

    Args:
        model: Whose weights are copied where OpenVINO computes.
        name: ``torch``; ``openvino-fp32``, ``openvino-bf16``, ``openvino-int8``; ``openvino``: the last of these;
            ``auto``: the last where OpenVINO knows the model and says nearly what torch says, else torch. None: what
            ``$NUNBIT_ENGINE`` says, or ``auto``.
        tell: Told in a few words what takes long.

    Returns:
        The engine; None for torch.

    Raises:
        UsageError: There is no such engine, or not for language models.
        UnsupportedModel: OpenVINO was asked for, and does not know the architecture here.
    """
    wanted = requested_engine(name)
    if wanted == TORCH:
        return None
    if wanted == AUTO:
        try:
            engine = _open_engine(model, "int8", tell)
            return engine if _says_the_same(engine, model.language_model) else None
        except ModelError:
            return None
    if wanted not in OPENVINO:
        hint = f"one of: {', '.join((AUTO, TORCH, *OPENVINO))}"
        raise UsageError(f"{wanted} computes no language models", hint=hint)
    return _open_engine(model, OPENVINO[wanted] or "int8", tell)


def _open_engine(model: VisionLanguageModel, precision: Precision, tell: Callable[[str], None]) -> OpenVinoEngine:
    LlamaSizes.of(model.language_model.model.config)  # refuses what is not known, before anything long
    tell("preparing OpenVINO; the first time that takes half a minute")
    try:
        eye = OpenVinoEye(model.eye)
    except ModelError:  # torch looks, then
        eye = None
    return OpenVinoEngine(model.language_model, precision, eye)


@torch.inference_mode()
def _says_the_same(engine: OpenVinoEngine, language_model: LanguageModel) -> bool:
    """On a few ids, by the cosine of what comes next, each row around its mean."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(language_model.vocab_size, (_CHECKS, _CHECKED_TOKENS), generator=generator)
    embeds, mask = language_model.embed(ids), torch.ones_like(ids, dtype=torch.bool)
    found, expected = engine.read(embeds, mask), language_model(embeds, mask).logits[:, -1].float()
    engine.forget()
    one, other = (rows - rows.mean(1, keepdim=True) for rows in (found, expected))
    return float(torch.cosine_similarity(one, other).mean()) >= COSINE_FLOOR["int8"]


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
        if engine.eye is not None and inputs.pixel_values is not None:
            inputs = replace(inputs, pixel_values=None, image_features=engine.eye(inputs.pixel_values))
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
