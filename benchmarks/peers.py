"""open_clip and transformers as their documentation uses them, with one interface for the benchmarks.

Shapes: B batch, N inputs, E embedding.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from nunbit.encode import Encoder
    from nunbit.types import FloatArray


Tower: TypeAlias = Literal["pictures", "texts"]


class Library(Protocol):
    """A model that was opened."""

    name: str

    def pictures(self, pixels: FloatArray) -> FloatArray:
        """(B, 3, S, S) float32, normalized → (B, E)."""

    def texts(self, texts: Sequence[str]) -> FloatArray:
        """N texts → (N, E)."""

    def precision(self, tower: Tower) -> str:
        """What its products are in: ``fp32``, ``bf16`` or ``int8``."""


class OpenClip:
    """open_clip in float32, or under autocast to bfloat16, which is how its README asks for another precision."""

    def __init__(self, folder: Path, *, bf16: bool = False) -> None:
        open_clip = import_open_clip()
        self.name = f"open_clip {'bf16' if bf16 else 'fp32'}"
        self._model, _, self.preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
        self._tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
        self._model.eval()
        self._bf16 = bf16

    def precision(self, tower: Tower) -> str:
        """One for both towers."""
        return "bf16" if self._bf16 else "fp32"

    def pictures(self, pixels: FloatArray) -> FloatArray:
        """(B, 3, S, S) float32, normalized → (B, E)."""
        import torch

        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
            rows = self._model.encode_image(torch.from_numpy(pixels), normalize=True)
        return np.asarray(rows.float().numpy())

    def texts(self, texts: Sequence[str]) -> FloatArray:
        """N texts → (N, E)."""
        import torch

        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
            rows = self._model.encode_text(self._tokenizer(list(texts)), normalize=True)
        return np.asarray(rows.float().numpy())


class Transformers:
    """transformers' CLIPModel with its tokenizer, in float32 or with weights in bfloat16."""

    def __init__(self, folder: Path, *, bf16: bool = False) -> None:
        import torch

        CLIPModel, CLIPTokenizer = import_transformers()  # noqa: N806
        self.name = f"transformers {'bf16' if bf16 else 'fp32'}"
        self._dtype = torch.bfloat16 if bf16 else torch.float32
        self._model = CLIPModel.from_pretrained(folder, dtype=self._dtype).eval()
        self._tokenizer = CLIPTokenizer.from_pretrained(folder)

    def precision(self, tower: Tower) -> str:
        """One for both towers."""
        return self.name.split()[1]

    def pictures(self, pixels: FloatArray) -> FloatArray:
        """(B, 3, S, S) float32, normalized → (B, E)."""
        import torch

        with torch.no_grad():
            return _unit(self._model.get_image_features(pixel_values=torch.from_numpy(pixels).to(self._dtype)))

    def texts(self, texts: Sequence[str]) -> FloatArray:
        """N texts → (N, E), padded to the longest of them."""
        import torch

        with torch.no_grad():
            return _unit(
                self._model.get_text_features(**self._tokenizer(list(texts), padding=True, return_tensors="pt"))
            )


class Nunbit:
    """nunbit with one engine."""

    def __init__(self, folder: Path, engine: str) -> None:
        import nunbit

        self.encoder: Encoder = nunbit.load(folder, engine=engine)
        self.name = f"nunbit {engine}"
        self.pictures = self.encoder.encode_pixels
        self.texts = self.encoder.encode_text

    def precision(self, tower: Tower) -> str:
        """As the engine's name says: ``openvino (pictures int8, texts bf16)``."""
        found = re.search(rf"{tower} (\w+)", self.encoder.engine.name)
        return found[1] if found and found[1] != "torch" else "fp32"


def library_names(folder: Path) -> list[str]:
    """All that are compared: other libraries, then nunbit's engines, ``nunbit auto`` the last of all."""
    others = ["open_clip fp32", "open_clip bf16", "transformers fp32", "transformers bf16"]
    return [*others, *(f"nunbit {engine}" for engine in (*nunbit_engines(folder), "auto"))]


def open_library(name: str, folder: Path) -> Library:
    """Open a model with one of `library_names`."""
    package, how = name.split()
    if package == "nunbit":
        return Nunbit(folder, how)
    return (OpenClip if package == "open_clip" else Transformers)(folder, bf16=how == "bf16")


def import_open_clip() -> Any:
    """open_clip, also beside a torchvision whose compiled part does not fit the installed torch."""
    from nunbit.vision_encoder.timm_backbone import import_timm

    import_timm()
    import open_clip

    return open_clip


def import_transformers() -> tuple[Any, Any]:
    """CLIPModel and CLIPTokenizer of transformers, without its progress bars."""
    from nunbit.vision_encoder.timm_backbone import import_timm

    import_timm()
    from transformers import CLIPModel, CLIPTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    return CLIPModel, CLIPTokenizer


def in_batches(run: Callable[[Any], FloatArray], inputs: Any, size: int) -> FloatArray:
    """Run ``size`` inputs at a time."""
    return np.concatenate([run(inputs[start : start + size]) for start in range(0, len(inputs), size)])


def as_square_pixels(files: Sequence[Path], encoder: Encoder) -> FloatArray:
    """(N, 3, S, S) float32: files as the encoder's own preprocessing makes them, for every peer alike."""
    from nunbit.images import open_image

    return np.stack([encoder.preprocessing(*open_image(file)) for file in files])


def nunbit_engines(folder: Path) -> list[str]:
    """The names of nunbit's engines that agree with torch on this machine and model: ``torch``, then OpenVINO's.

    All of them are prepared, in the cache of this machine.
    """
    from nunbit.agreement import engine_record
    from nunbit.loading import model_source

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        record = engine_record(model_source(folder, str(folder)))
    checks = record.image.checks if record.image else ()
    return ["torch", *(f"openvino-{check.precision}" for check in checks if not check.refused)]


def _unit(features: Any) -> FloatArray:
    """Rows of unit length; transformers 5 wraps features in an object, earlier ones give the tensor."""
    features = getattr(features, "pooler_output", features).float()
    return np.asarray((features / features.norm(dim=-1, keepdim=True)).numpy())
