"""A `Clip` of any family as it is trained: from scratch, whole, with a locked tower, or with adapters.

Shapes: N pairs, S side in pixels, T tokens, E embedding.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nunbit.clip import Clip
from nunbit.contrastive.config import ModelConfig
from nunbit.contrastive.students import MAX_SCALE, LockedWidths, append_provenance
from nunbit.encode import Encoder, EncoderInfo
from nunbit.errors import ConfigError, NunbitWarning
from nunbit.layers import Block
from nunbit.lora import add_lora, merge_lora
from nunbit.preprocessing import Preprocessing
from nunbit.pretrained.encoder import ClipTowers
from nunbit.pretrained.fingerprint import fingerprint
from nunbit.pretrained.parts import Settings
from nunbit.training.distributed import divide

if TYPE_CHECKING:
    from nunbit.types import FloatArray


class ClipStudent:
    """A `Clip` of any family.

    Args:
        model: Filled; its parameters are freed or frozen here, as the configuration says.
        settings: Its preprocessing and tokenizer.
        config: What learns.
        license: Of the trained weights.
        name: What they are called.
    """

    def __init__(self, model: Clip, settings: Settings, config: ModelConfig, *, license: str, name: str) -> None:
        preprocessing = settings.preprocessing
        if not isinstance(preprocessing, Preprocessing):
            raise ConfigError(f"{name}: a model that takes pictures of several sizes (NaFlex) cannot be trained here")
        self.module, self.settings, self.preprocessing = model, settings, preprocessing
        self.license, self.name = license, name
        if config.objective not in (None, settings.config.objective):
            raise ConfigError(
                f"model.objective is {config.objective}, the start was trained with {settings.config.objective}",
                hint="leave it out: probabilities would change their meaning",
            )
        size = settings.config.embedding_size
        self.locked = LockedWidths(
            size if "vision" in config.locked else None, size if "text" in config.locked else None
        )
        self._decay = config.layer_decay
        self._told_of_long_texts = False
        self.start_fingerprint = fingerprint(model, settings)
        self._max_log_scale = max(math.log(MAX_SCALE), float(model.logit_scale.detach()))
        _free(model, config)
        for block in model.modules():
            if isinstance(block, Block):
                block.recompute = config.recompute

    def locked_image_encoder(self) -> Encoder:
        """Its rows are the embeddings."""
        return self._encoder()

    def locked_text_rows(self, texts: Sequence[str]) -> FloatArray:
        """The embeddings."""
        return self._towers().encode_texts(texts)

    def token_ids(self, texts: Sequence[str]) -> Tensor:
        """As the model's tokenizer cuts them; that texts were too long is told once."""
        with warnings.catch_warnings():
            if self._told_of_long_texts:
                warnings.simplefilter("ignore", NunbitWarning)
            ids = torch.from_numpy(self.settings.tokenizer(texts))
        self._told_of_long_texts |= ids.shape[1] == self.settings.tokenizer.config.context_length
        return ids

    def embed_image(self, inputs: Tensor) -> Tensor:
        """Through the tower, unless it is locked."""
        return self.module.embed_image(inputs) if self.locked.image is None else functional.normalize(inputs, dim=-1)

    def embed_text(self, inputs: Tensor) -> Tensor:
        """Through the tower, unless it is locked."""
        return self.module.embed_text(inputs) if self.locked.text is None else functional.normalize(inputs, dim=-1)

    def scale_and_bias(self) -> tuple[Tensor, Tensor | None]:
        """The model's own."""
        return self.module.logit_scale.exp(), self.module.logit_bias

    @torch.no_grad()
    def constrain(self) -> None:
        """Clamp the logarithm."""
        self.module.logit_scale.clamp_(0, self._max_log_scale)

    def rate_factor(self, name: str) -> float:
        """``layer_decay`` to the power of how many blocks stand between a parameter and its tower's output."""
        if self._decay == 1:
            return 1.0
        tower, _, rest = name.partition(".")
        blocks = getattr(getattr(self.module, tower, None), "blocks", None)
        if blocks is None or rest.startswith(("norm.", "projection.", "pooling.")):
            return 1.0
        depth = int(rest.split(".")[1]) if rest.startswith("blocks.") else -1
        return float(self._decay ** (len(blocks) - depth))

    def merge(self) -> None:
        """Turn adapters into plain weights."""
        merge_lora(self.module)

    def divide(self) -> None:
        """Divide both towers over the ranks, a block at a time."""
        towers: dict[nn.Module, Sequence[str]] = {
            self.module.vision_encoder: ["image_features"],
            self.module.text_encoder: ["text_features"],
        }
        divide(self.module, [part for part in self.module.modules() if isinstance(part, Block)], towers)

    def _encoder(self) -> Encoder:
        info = EncoderInfo(self.name, self.settings.config.embedding_size, self.preprocessing)
        return Encoder(self._towers(), info)

    def save(self, folder: Path, provenance: Mapping[str, Any]) -> None:
        """In every format that knows the architecture."""
        self._encoder().save_pretrained(folder)
        append_provenance(folder, provenance)

    def _towers(self) -> ClipTowers:
        """The model for use; it comes back to what learns, which `ClipTowers` ends."""
        learning = [parameter.requires_grad for parameter in self.module.parameters()]
        towers = ClipTowers(self.module, self.settings, license=self.license, name=self.name)
        for parameter, learns in zip(self.module.parameters(), learning, strict=True):
            parameter.requires_grad_(learns)
        return towers


def _free(model: Clip, config: ModelConfig) -> None:
    model.requires_grad_(True)
    if config.lora is not None:
        add_lora(model, config.lora)
        model.logit_scale.requires_grad_(True)
    for tower in config.locked:
        part = model.vision_encoder if tower == "vision" else model.text_encoder
        if config.lora is not None and any(parameter.requires_grad for parameter in part.parameters()):
            raise ConfigError(f"the {tower} tower is locked, and lora.targets has weights of it")
        part.requires_grad_(False)
