"""The starter: picture tower + text tower + bridge, as one dual encoder.

The towers come from packages that a fresh machine installs by name; the bridge from a model folder
(``config.json`` + ``model.safetensors``). Each tower is read on first use: a search by words never loads torch's
picture tower, an indexing run never loads the text tower.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nunbit.encode import Encoder, EncoderInfo
from nunbit.errors import ModelNotFound, WeightsError
from nunbit.packaged_files import sha256_of
from nunbit.preprocessing import Preprocessing
from nunbit.starter.packages import PACKAGED_FILES, PICTURE_WEIGHTS, TEXT_VOCABULARY, TEXT_WEIGHTS

if TYPE_CHECKING:
    from nunbit.programs import Program
    from nunbit.starter.bridge import Bridge
    from nunbit.starter.picture_tower import EfficientNetLite
    from nunbit.starter.text_tower import SentenceEncoder
    from nunbit.types import FloatArray

MODEL_TYPE = "starter"
SHIPPED = Path(__file__).parent / "weights"
PATCH_SIZE = 8
PATCH_LAYERS = (4, 7)
"""Behind the last block of stride 4 and the last of stride 8, chosen on half of the boards of benchmarks/inspection.py:
deeper ones know more of what things are, and find less of what is wrong with them."""
PREPROCESSING = Preprocessing(
    image_size=260,
    crop_fraction=1.0,
    mean=(127 / 255, 127 / 255, 127 / 255),
    std=(128 / 255, 128 / 255, 128 / 255),
    resize="squash",  # the whole picture: a crop loses what stands at the edges, and retrieval suffers
    interpolation="bicubic",
)


class Starter:
    """The starter's towers and bridge.

    Args:
        folder: A model folder with the bridge.
        fingerprint: Over everything that changes an answer.
        logit_scale: Factor on similarities before a softmax over labels.
    """

    tokenizer = None
    logit_bias = None

    def __init__(self, folder: Path, *, fingerprint: str = "", logit_scale: float = 1.0) -> None:
        self._folder = folder
        self.fingerprint = fingerprint
        self.logit_scale = logit_scale

    @cached_property
    def picture_tower(self) -> EfficientNetLite:
        """EfficientNet-Lite2, ready for inference."""
        from nunbit.starter.picture_tower import LITE2, load_efficientnet_lite, prepare_for_inference

        return prepare_for_inference(load_efficientnet_lite(PICTURE_WEIGHTS.locate(), LITE2))

    @cached_property
    def text_tower(self) -> SentenceEncoder:
        """Universal Sentence Encoder, multilingual."""
        from nunbit.starter.text_tower import SentenceEncoder

        return SentenceEncoder(TEXT_VOCABULARY.locate(), TEXT_WEIGHTS.locate())

    @cached_property
    def bridge(self) -> Bridge:
        """The trained part, in float32."""
        from nunbit.starter.bridge import Bridge

        return load_bridge(self._folder, Bridge())

    @cached_property
    def _text_bridge(self) -> dict[str, FloatArray]:
        from safetensors import safe_open

        with safe_open(self._folder / "model.safetensors", "np") as file:
            return {name: file.get_tensor(name).astype(np.float32) for name in ("text_mean", "text_map", "text_bias")}

    def features(self, pixel_values: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(B, 3, 260, 260) float32 → features (B, 1280) and ImageNet logits (B, 1000), float32."""
        import torch

        pixels = torch.from_numpy(pixel_values).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            features, logits = self.picture_tower(pixels)
        return features.numpy(), logits.numpy()

    @property
    def patch_size(self) -> int:
        """As in `nunbit.encode.PatchEncoder`."""
        return PATCH_SIZE

    def patch_features(self, pixel_values: FloatArray, *, layers: Sequence[int] | None = None) -> FloatArray:
        """As in `nunbit.encode.PatchEncoder`; by default behind the blocks `PATCH_LAYERS`."""
        import torch

        from nunbit.vision_encoder.patch_maps import join_maps

        pixels = torch.from_numpy(pixel_values).contiguous(memory_format=torch.channels_last)
        grid = (pixels.shape[-2] // PATCH_SIZE, pixels.shape[-1] // PATCH_SIZE)
        with torch.inference_mode():
            maps = self.picture_tower.block_maps(pixels, PATCH_LAYERS if layers is None else layers)
            return join_maps(maps, grid).numpy()

    @property
    def model(self) -> Starter:
        """Itself: its towers are not one torch module."""
        return self

    def save(self, folder: Path) -> None:
        """Copy the bridge, which is all of the model that is not in packages."""
        shutil.copytree(self._folder, folder, dirs_exist_ok=True)

    def encode_pixels(self, pixel_values: FloatArray | Sequence[FloatArray]) -> FloatArray:
        """(B, 3, 260, 260) float32 → (B, 512) unit rows."""
        import torch

        features, logits = self.features(np.asarray(pixel_values))
        with torch.inference_mode():
            rows: FloatArray = self.bridge.encode_image(torch.from_numpy(features), torch.from_numpy(logits)).numpy()
        return rows

    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        """N texts → (N, 512) unit rows; in NumPy like the text tower, so that words alone never load torch."""
        bridge = self._text_bridge
        rows = (self.text_tower.encode(texts) - bridge["text_mean"]) @ bridge["text_map"] + bridge["text_bias"]
        unit: FloatArray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return unit

    def programs(self) -> dict[str, Program]:
        """The picture tower with its side of the bridge, ``image`` of (B, 3, 260, 260) pixels; texts need no torch."""
        import torch

        from nunbit.programs import Program

        tower, bridge, size = self.picture_tower, self.bridge, PREPROCESSING.image_size
        pixels = torch.zeros(2, 3, size, size)
        return {
            "image": Program(lambda x: bridge.encode_image(*tower(x)), (tower, bridge), pixels, {0: ("batch", None)})
        }


def load_bridge(folder: Path, bridge: Bridge) -> Bridge:
    """Fill ``bridge`` from ``folder/model.safetensors``.

    Raises:
        WeightsError: Tensors are missing, unexpected or misshapen; all of them are listed.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / "model.safetensors"
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be read: {error}", hint="copy the model folder again") from error
    own = bridge.state_dict()
    problems = [f"missing {name}" for name in own.keys() - tensors.keys()]
    problems += [f"unexpected {name}" for name in tensors.keys() - own.keys()]
    problems += [
        f"{name} is {tuple(tensors[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own.keys() & tensors.keys()
        if tensors[name].shape != own[name].shape
    ]
    if problems:
        raise WeightsError(f"{path} does not fit the starter: {'; '.join(sorted(problems))}")
    bridge.load_state_dict(tensors)
    return bridge.float().eval().requires_grad_(False)


def load_starter(folder: Path, name: str) -> Encoder:
    """Open a starter model folder without reading its towers yet.

    Args:
        folder: Has ``config.json`` and ``model.safetensors``.
        name: What the user called it.

    Raises:
        ModelNotFound: A file is missing.
        WeightsError: The bridge is not the one that ``config.json`` describes.
    """
    config_path, weights_path = folder / "config.json", folder / "model.safetensors"
    for path in (config_path, weights_path):
        if not path.is_file():
            raise ModelNotFound(f"{folder} has no {path.name}")
    config = json.loads(config_path.read_text(encoding="utf-8"))
    checksum = sha256_of(weights_path)
    if checksum != config["sha256"]:
        message = f"{weights_path} has sha256 {checksum[:16]}…, its config.json says {config['sha256'][:16]}…"
        raise WeightsError(message, hint="copy the model folder again, both files together")
    info = EncoderInfo(
        name=name,
        embedding_size=int(config["embedding_size"]),
        preprocessing=PREPROCESSING,
    )
    scale = float(config["logit_scale"])
    return Encoder(Starter(folder, fingerprint=_fingerprint(checksum), logit_scale=scale), info)


def _fingerprint(bridge_sha256: str) -> str:
    answer_changers = {
        "model_type": MODEL_TYPE,
        "architecture": "efficientnet-lite2 + use-multilingual-v3 + linear bridge",
        "bridge": bridge_sha256,
        "towers": [file.sha256 for file in PACKAGED_FILES],
        "preprocessing": PREPROCESSING.to_dict(),
        "precision": str(np.dtype(np.float32)),
    }
    return hashlib.sha256(json.dumps(answer_changers, sort_keys=True).encode()).hexdigest()
