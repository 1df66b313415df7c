"""The language model on OpenVINO: the same answers.

Shapes: B answers, T new tokens, N tokens in all, W width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from nunbit.cores import usable_cores
from nunbit.engine.kept_graphs import fingerprint, open_graph
from nunbit.engine.names import AUTO, TORCH, refusal, requested_engine
from nunbit.engine.openvino_models import first_line, import_openvino
from nunbit.errors import EngineRefused, ModelError, UsageError
from nunbit.generate.llama_graph import FORMAT_VERSION, LlamaSizes, build_graph
from nunbit.generate.openvino_eye import OpenVinoEye
from nunbit.generate.prefix import Key, shared_prefix
from nunbit.generate.sessions import Look

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nunbit.language_model import LanguageModel
    from nunbit.vlm.model import VisionLanguageModel

Precision: TypeAlias = Literal["fp32", "int8"]

_PRECISIONS: dict[str, Precision] = {"openvino": "int8", "openvino-fp32": "fp32", "openvino-int8": "int8"}
ENGINES = (AUTO, TORCH, *_PRECISIONS)
"""What can compute a language model."""

_SETTINGS = {
    # Products in bfloat16 are now and then wrong in OpenVINO 2026.4, where other models ran in the same process before.
    "INFERENCE_PRECISION_HINT": "f32",
    "KV_CACHE_PRECISION": "f32",  # else in 8 bits
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",  # else what is multiplied with weights in few bits is rounded, too
    "NUM_STREAMS": "1",
    "ENABLE_CPU_PINNING": False,
}
_CHECKS, _CHECKED_TOKENS, _CHECKED_PADDING = 4, 24, 5
_NEVER = np.float32(-1e30)  # added to scores of what is not looked at; minus infinity would leave padding without any


class OpenVinoEngine:
    """A language model of the Llama architecture, compiled for this processor and compared with torch.

    Args:
        model: Its weights are copied.
        precision: Of weights; products are of float32. ``fp32``: as torch computes it, to rounding. ``int8``: in a
            quarter of the memory. In either case those that came in fewer bits are kept in these.
        eye: Looks at pictures in place of the model's.
        tell: Told in a few words what takes long.

    Attributes:
        session: That reads now; there is one at a time.
        keys: What was read of the one conversation that is remembered.
        eye: As given.

    Raises:
        UnsupportedModel: Another architecture.
        EngineRefused: OpenVINO cannot compute it, or does not say what torch says.
        ModelError: OpenVINO is not installed.
    """

    def __init__(
        self,
        model: LanguageModel,
        precision: Precision = "fp32",
        *,
        eye: Look | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.session: OpenVinoSession | None = None
        self.keys: list[Key] = []
        self.eye = eye
        self._sizes = LlamaSizes.of(model.model.config)
        self._openvino = import_openvino()
        self._request: Any = None
        state = model.model.state_dict()

        def make() -> Any:
            tell("preparing the language model for OpenVINO, once")
            return build_graph(self._sizes, state, loss=precision == "int8")

        name = f"llama-{fingerprint(state.items(), FORMAT_VERSION, self._sizes, precision)}"
        open_graph(name, make, lambda graph: self._open(graph, model, precision))

    def _open(self, graph: Any, model: LanguageModel, precision: Precision) -> None:
        settings = {**_SETTINGS, "INFERENCE_NUM_THREADS": usable_cores()}
        embeds, mask, expected = _check(model)
        try:
            self._request = self._openvino.Core().compile_model(graph, "CPU", settings).create_infer_request()
            before = self.read(embeds[:, :-1], mask[:, :-1])
            found = torch.stack([before, self.read(embeds[:, -1:], mask)], dim=1)
            self.forget()
        except RuntimeError as error:
            message = f"OpenVINO cannot compute the language model: {first_line(error)}"
            raise EngineRefused(message, hint="--engine torch") from error
        one, other = (rows - rows.mean(2, keepdim=True) for rows in (found, expected))
        cosines = torch.cosine_similarity(one, other, dim=2)
        rounded = "int8" if embeds.dtype != torch.float32 else precision  # torch itself rounds, then
        if refused := refusal(float(cosines.mean()), float(cosines.min()), rounded):
            raise EngineRefused(f"the language model on OpenVINO says something else: {refused}", hint="--engine torch")

    def read(self, inputs_embeds: Tensor, attention_mask: Tensor) -> Tensor:
        """As `nunbit.generate.sessions.Session.read`, whoever's conversation it is."""
        seen = attention_mask.cpu().numpy().astype(bool)
        batch, new = inputs_embeds.shape[:2]
        positions = np.maximum(seen.cumsum(1) - 1, 0)[:, -new:]
        places = np.arange(seen.shape[1])
        allowed = seen[:, None] & (places[None, None] <= places[-new:][None, :, None])  # (B, T, N)
        mask = np.where(allowed, np.float32(0), _NEVER)[:, None]
        inputs = [inputs_embeds.float().cpu().numpy(), *self._sizes.angles(positions), mask]
        self._request.infer([*map(np.ascontiguousarray, inputs), np.arange(batch, dtype=np.int32)])
        logits: NDArray[np.float32] = self._request.get_output_tensor(0).data[:, -1]
        return torch.from_numpy(logits.copy())

    def forget(self, length: int = 0) -> None:
        """Keep so many of the tokens that were read, and forget those behind."""
        if length == 0:
            self._request.reset_state()
            return
        for variable in self._request.query_state():
            kept = np.ascontiguousarray(variable.state.data[:, :, :length])
            variable.state = self._openvino.Tensor(kept)


@torch.inference_mode()
def _check(model: LanguageModel) -> tuple[Tensor, Tensor, Tensor]:
    """What is read to compare with torch, padding among it, its mask, and torch's logits behind the last two tokens."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(model.vocab_size, (_CHECKS, _CHECKED_TOKENS), generator=generator)
    embeds, mask = model.embed(ids), torch.ones_like(ids, dtype=torch.bool)
    mask[0, :_CHECKED_PADDING] = False
    return embeds, mask, model(embeds, mask).logits[:, -2:].float()


class OpenVinoSession:
    """Conversations on an engine. When another is begun there, this one has ended.

    Args:
        engine: Remembers the last conversation.
    """

    def __init__(self, engine: OpenVinoEngine) -> None:
        self._engine, self._read = engine, 0
        self.eye = engine.eye

    def begin(self, keys: Sequence[Key]) -> int:
        """As `Session.begin`."""
        engine = self._engine
        self._read = shared_prefix(keys, engine.keys)
        engine.session, engine.keys = self, []  # until the end nobody knows what is there
        engine.forget(self._read)
        return self._read

    def read(self, inputs_embeds: Tensor, attention_mask: Tensor) -> Tensor:
        """As `Session.read`.

        Raises:
            UsageError: Another conversation was begun meanwhile.
        """
        if self._engine.session is not self:
            message = "another question was asked while this one was being answered"
            raise UsageError(message, hint='one after the other, or engine="torch", which keeps them apart')
        logits = self._engine.read(inputs_embeds, attention_mask)
        self._read += inputs_embeds.shape[1]
        return logits

    def end(self, keys: Sequence[Key]) -> None:
        """As `Session.end`."""
        if self._engine.session is self:
            self._engine.session = None
            self._engine.keys = list(keys) if len(keys) == self._read else []


def choose_engine(
    model: VisionLanguageModel, name: str | None = None, tell: Callable[[str], None] = lambda _: None
) -> OpenVinoEngine | None:
    """What computes a vision-language model.

    Args:
        model: Whose weights are copied where OpenVINO computes.
        name: ``torch``; ``openvino-fp32``, ``openvino-int8``; ``openvino``: the last of these; ``auto``: the last where
            OpenVINO knows the model and says nearly what torch says, else torch. None: what ``$NUNBIT_ENGINE`` says, or
            ``auto`` where that is an engine of encoders alone.
        tell: Told in a few words what takes long.

    Returns:
        The engine; None for torch.

    Raises:
        UsageError: There is no such engine, or not for language models.
        UnsupportedModel: OpenVINO was asked for, and does not know the architecture here.
        EngineRefused: It was asked for, and does not say what torch says.
    """
    wanted = requested_engine(name)
    if name is None and wanted not in ENGINES:
        wanted = AUTO
    if wanted == TORCH:
        return None
    if wanted == AUTO:
        try:
            return _open_engine(model, "int8", tell)
        except ModelError:
            return None
    if wanted not in ENGINES:
        raise UsageError(f"{wanted} computes no language models", hint=f"one of: {', '.join(ENGINES)}")
    return _open_engine(model, _PRECISIONS[wanted], tell)


def _open_engine(model: VisionLanguageModel, precision: Precision, tell: Callable[[str], None]) -> OpenVinoEngine:
    LlamaSizes.of(model.language_model.model.config)  # refuses what is not known, before anything long
    try:
        eye = OpenVinoEye(model.eye, tell)
    except ModelError:  # torch looks, then
        eye = None
    return OpenVinoEngine(model.language_model, precision, eye=eye, tell=tell)
