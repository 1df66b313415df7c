"""A dual encoder of torch as the rest of the project uses it: pictures and texts in, NumPy rows out.

Shapes: B batch, N texts, E embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import torch

from nunbit.clip import Clip
from nunbit.encode import Encoder, EncoderInfo, EngineInfo
from nunbit.errors import UnsupportedModel, UsageError, WeightsError
from nunbit.preprocessing import Preprocessing
from nunbit.pretrained.fingerprint import fingerprint
from nunbit.pretrained.parts import Pretrained, Settings, blank_model, read_json
from nunbit.pretrained.reading import OWN_FILE, read_pretrained
from nunbit.pretrained.writing import write_pretrained
from nunbit.programs import Program
from nunbit.text.batches import batches_by_length
from nunbit.vision_encoder import PatchBatch, pad_patches
from nunbit.vision_encoder.patch_maps import patch_map, patch_size_of

if TYPE_CHECKING:
    from nunbit.types import FloatArray

Precision: TypeAlias = Literal["float32", "bfloat16", "float16"]


GPU_BATCH = 32


class ClipTowers:
    """What `nunbit.encode.Encoder` runs: a `Clip` with its tokenizer.

    Args:
        model: Filled with weights.
        settings: How pictures and texts become its input.
        license: Of the weights; empty when unknown.
        name: What the user called it.
    """

    def __init__(self, model: Clip, settings: Settings, *, license: str, name: str) -> None:
        self.model = model.eval().requires_grad_(False)
        self.settings = settings
        self.tokenizer = settings.tokenizer
        self.license = license
        self.name = name
        self._fingerprint: tuple[object, str] = (None, "")

    @property
    def fingerprint(self) -> str:
        """Over everything that changes an answer; computed again after the weights were changed."""
        weights = tuple((tensor.data_ptr(), tensor._version) for tensor in self.model.state_dict().values())
        if self._fingerprint[0] != weights:
            self._fingerprint = (weights, fingerprint(self.model, self.settings))
        return self._fingerprint[1]

    @property
    def logit_scale(self) -> float:
        """The factor on similarities, no logarithm any more."""
        return float(self.model.logit_scale.exp())

    @property
    def logit_bias(self) -> float | None:
        """What is added to scaled similarities; None for the softmax objective."""
        return None if self.model.logit_bias is None else float(self.model.logit_bias)

    def encode_pixels(self, pixel_values: FloatArray | Sequence[FloatArray]) -> FloatArray:
        """(B, 3, H, W) float32, or B arrays (3, H_i, W_i) for a flexible model → (B, E) unit rows."""
        with torch.inference_mode():
            return _rows(self.model.embed_image(self._batch(pixel_values)))

    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        """N texts → (N, E) unit rows."""
        ids = self.tokenizer(texts)
        rows = np.empty((len(ids), self.settings.config.embedding_size), np.float32)
        with torch.inference_mode():
            for numbers, some in batches_by_length(ids, self.tokenizer.config):
                batch = torch.from_numpy(some).to(self.model.logit_scale.device)
                rows[numbers] = _rows(self.model.embed_text(batch))
        return rows

    @property
    def patch_size(self) -> int:
        """As in `nunbit.encode.PatchEncoder`."""
        return patch_size_of(self.model.vision_encoder)

    def patch_features(self, pixel_values: FloatArray, *, layers: Sequence[int] | None = None) -> FloatArray:
        """As in `nunbit.encode.PatchEncoder`; by default a ViT is read behind half of its blocks."""
        with torch.inference_mode():
            batch = torch.from_numpy(pixel_values).to(self.model.logit_scale)
            return _rows(patch_map(self.model.vision_encoder, batch, layers))

    def programs(self) -> dict[str, Program]:
        """Both towers: ``image`` of (B, 3, S, S) pixels and ``text`` of (B, T) token ids.

        T is free up to the context length where padding changes nothing (CLIP), and fixed otherwise (SigLIP).

        Raises:
            UnsupportedModel: It takes pictures of any proportions, and computes positions for each.
            UsageError: Another precision or device than float32 on the cpu.
        """
        preprocessing, tokens = self.settings.preprocessing, self.tokenizer.config
        if not isinstance(preprocessing, Preprocessing):
            raise UnsupportedModel(
                f"{self.name} takes pictures of any proportions (NaFlex) and computes positions for the size of each, "
                "which cannot be compiled",
                hint="a SigLIP 2 that takes one size can, such as siglip2-b-16-256",
            )
        reference = self.model.logit_scale
        if reference.dtype != torch.float32 or reference.device.type != "cpu":
            raise UsageError(
                f"{self.name} computes in {reference.dtype} on {reference.device}; only float32 on the cpu is compiled",
                hint="load it without another precision or device",
            )
        pixels = torch.zeros(2, 3, preprocessing.image_size, preprocessing.image_size)
        ids = torch.zeros(2, tokens.context_length, dtype=torch.int64)
        batch: dict[int, tuple[str, int | None]] = {0: ("batch", None)}
        length: dict[int, tuple[str, int | None]] = {}
        if tokens.padding == "longest":
            length = {1: ("tokens", tokens.context_length)}
        return {
            "image": Program(self.model.embed_image, (self.model,), pixels, batch),
            "text": Program(self.model.embed_text, (self.model,), ids, batch | length),
        }

    def save(self, folder: Path) -> None:
        """Write a model folder, with a card.

        Raises:
            UsageError: The model computes in another precision than float32.
        """
        if self.model.logit_scale.dtype != torch.float32:
            raise UsageError("only a model in float32 is saved", hint="load it without another precision")
        card = {"name": self.name, "license": self.license, "fingerprint": self.fingerprint}
        write_pretrained(folder, self.model, self.settings, card)

    def _batch(self, pixel_values: FloatArray | Sequence[FloatArray]) -> torch.Tensor | PatchBatch:
        reference = self.model.logit_scale
        if isinstance(pixel_values, np.ndarray):
            return torch.from_numpy(pixel_values).to(reference)
        vision = self.settings.config.vision
        if vision.kind != "vit" or not vision.flexible:
            raise UsageError("pictures of several sizes in one batch, and this model takes one size")
        pictures = [torch.from_numpy(picture).to(reference) for picture in pixel_values]
        batch = pad_patches(pictures, vision.patch_size)
        mask, shapes = batch.attention_mask.to(reference.device), batch.spatial_shapes.to(reference.device)
        return PatchBatch(batch.patches, mask, shapes)


def load_clip(path: Path, name: str, *, precision: Precision = "float32", device: str = "cpu") -> Encoder:
    """Open a model folder or archive as an encoder.

    Args:
        path: The folder, or one of OpenAI's archives.
        name: What the user called it.
        precision: What the model computes in. Everything but float32 changes answers a little, and the fingerprint.
        device: Where it computes, as torch names it.

    Raises:
        UnsupportedModel: The kind of model, or a part of it, is not known here.
        WeightsError: The files are not what they should be.
    """
    pretrained = read_pretrained(path)
    model = _place(build_model(pretrained), precision, device)
    towers = ClipTowers(model, pretrained.settings, license=pretrained.license, name=name)
    if precision == "float32":
        _check_fingerprint(path, towers.fingerprint)
    info = EncoderInfo(
        name=name,
        embedding_size=pretrained.settings.config.embedding_size,
        preprocessing=pretrained.settings.preprocessing,
        engine=EngineInfo() if device == "cpu" else EngineInfo(f"torch {device}", batch_size=GPU_BATCH),
    )
    return Encoder(towers, info)


def build_model(pretrained: Pretrained) -> Clip:
    """The module, filled."""
    model = blank_model(pretrained.settings.config)
    # A tensor that the file does not carry would stay without values; the names were checked before.
    model.load_state_dict(pretrained.state, assign=True)
    return model


def _place(model: Clip, precision: Precision, device: str) -> Clip:
    try:
        return model.to(device=device, dtype=getattr(torch, precision))
    except (RuntimeError, AssertionError) as error:  # torch raises either for a device that is not there
        reason = str(error).splitlines()[0]
        raise UsageError(f"torch cannot compute on {device!r}: {reason}", hint="cpu works everywhere") from error


def _rows(embeddings: torch.Tensor) -> FloatArray:
    rows: FloatArray = embeddings.float().cpu().numpy()
    return rows


def _check_fingerprint(path: Path, computed: str) -> None:
    """Compare with what was recorded when the folder was written."""
    if path.is_dir() and (path / OWN_FILE).is_file():
        recorded = read_json(path / OWN_FILE).get("fingerprint", computed)
        if recorded != computed:
            raise WeightsError(
                f"{path} has the fingerprint {computed[:16]}…, {OWN_FILE} says {str(recorded)[:16]}…",
                hint="a file was changed or replaced since it was saved; copy the whole folder again",
            )
