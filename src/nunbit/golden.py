"""Golden outputs: what a model answered when it was saved, kept beside its weights, and checked again at any time.

The costliest failure of an encoder is a silent one: another library version resizes a little differently, a tokenizer
file was replaced, a kernel is wrong on a new processor. So a few pictures and texts, made by formulas and therefore
never missing, go the whole way from picture and text to embedding, and what comes out is compared with what came out
before, stage by stage.

Shapes: N pictures, M texts, T tokens, E embedding.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from nunbit.errors import DriftError, NunbitWarning, UsageError, WeightsError

if TYPE_CHECKING:
    from nunbit.types import FloatArray, ImageSource

FILE = "golden.safetensors"
TOLERANCE = {"pixels": 1e-5, "image_embeddings": 1e-4, "text_embeddings": 1e-4}
"""Largest absolute difference: float32 sums in another order differ by about 1e-6, a wrong activation by 1e-2."""

SIZES = ((320, 240), (240, 320), (97, 211), (64, 64), (500, 120))
TEXTS = (
    "a photo of a cat",
    "It's NOT a dog's dinner, IS it?",
    "창가에 앉은 고양이 한 마리",
    "🐈‍⬛ on a 🛋️ — “asleep”",
    "x",
    "two dogs run along a beach while the sun goes down behind the hills " * 12,
)
READABLE = 0o644
"""safetensors makes its files for their owner alone; a model folder is shared like any other."""
_SAMPLED = 16  # every so many pixels are kept: enough to tell a changed filter or crop


class Answering(Protocol):
    """What is needed of an encoder."""

    @property
    def name(self) -> str:
        """What the user called it."""

    @property
    def fingerprint(self) -> str:
        """Over everything that changes an answer."""

    @property
    def preprocessing(self) -> Any:
        """RGB picture → (3, H, W)."""

    @property
    def tokenizer(self) -> Any:
        """Texts → ids; None where there is none."""

    def encode_image(self, images: Sequence[ImageSource]) -> FloatArray:
        """N pictures → (N, E)."""

    def encode_text(self, texts: Sequence[str]) -> FloatArray:
        """M texts → (M, E)."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far an encoder is from its golden outputs.

    Attributes:
        differences: Largest absolute difference by stage: ``pixels``, ``image_embeddings``, ``text_embeddings``.
        token_ids_equal: Number of texts whose ids are the same, and of all.
    """

    differences: dict[str, float]
    token_ids_equal: tuple[int, int]


def record_golden(encoder: Answering, folder: Path) -> Path:
    """Write the golden outputs of an encoder into its folder."""
    from safetensors.numpy import save_file

    path = folder / FILE
    answers = {name: np.ascontiguousarray(array) for name, array in _answers(encoder).items()}
    save_file(answers, path, metadata={"fingerprint": encoder.fingerprint, "texts": json.dumps(TEXTS)})
    path.chmod(READABLE)
    return path


def compare_golden(encoder: Answering, folder: Path) -> Comparison:
    """Compute the golden outputs again and compare.

    Raises:
        UsageError: None were recorded in this folder.
        WeightsError: The file with them is damaged.
        DriftError: They differ by more than rounding; all stages that do are named.
    """
    recorded, metadata = _read(folder / FILE)
    fingerprint = metadata.get("fingerprint", "")
    if metadata.get("texts") != json.dumps(TEXTS):
        hint = "record them again while you trust the model: nunbit models verify --record"
        raise UsageError(f"{folder / FILE} was recorded by another version of nunbit, on other texts", hint=hint)
    now = _answers(encoder)
    problems = []
    if fingerprint != encoder.fingerprint:
        problems.append(f"the fingerprint is {encoder.fingerprint[:16]}…, it was {fingerprint[:16]}…")
    equal = (len(TEXTS), len(TEXTS))
    if "token_ids" in recorded or "token_ids" in now:
        same = _rows_equal(recorded.get("token_ids"), now.get("token_ids"))
        equal = (sum(same), len(TEXTS))
        if not all(same):
            problems.append(f"token ids of {len(TEXTS) - sum(same)} of {len(TEXTS)} texts differ")
    differences = {stage: _difference(recorded.get(stage), now[stage]) for stage in TOLERANCE}
    for stage, difference in differences.items():
        if not difference <= TOLERANCE[stage]:
            problems.append(f"{stage} differ by up to {difference:.2g}, allowed is {TOLERANCE[stage]:.0e}")
    if problems:
        hint = "compare library versions (Pillow, tokenizers, torch) and the files with those it was saved with"
        raise DriftError(f"{encoder.name} answers otherwise than it did: {'; '.join(problems)}", hint=hint)
    return Comparison(differences, equal)


def golden_pictures() -> list[Image.Image]:
    """Pictures made by a formula in whole numbers: waves of several lengths, sharp edges, large and small."""
    pictures = []
    for number, (width, height) in enumerate(SIZES, start=1):
        x, y = np.arange(width)[None, :], np.arange(height)[:, None]
        red = (x * x // 29 + y * number * 7) % 256
        green = np.where((x // 13 + y // (5 + number)) % 2 == 0, 220, 40) + 0 * red
        blue = (x * 3 + y * y // 17) % 256
        pictures.append(Image.fromarray(np.stack([red, green, blue], axis=-1).astype(np.uint8)))
    return pictures


def _answers(encoder: Answering) -> dict[str, Any]:
    pictures = golden_pictures()
    sampled = [encoder.preprocessing(picture)[:, ::_SAMPLED, ::_SAMPLED].reshape(-1) for picture in pictures]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NunbitWarning)  # one text is too long on purpose
        answers = {
            "pixels": np.concatenate(sampled),
            "image_embeddings": encoder.encode_image(pictures),
            "text_embeddings": encoder.encode_text(TEXTS),
        }
        if encoder.tokenizer is not None:
            answers["token_ids"] = encoder.tokenizer(TEXTS)
    return answers


def _read(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        hint = "record them now, while you trust the model: nunbit models verify --record"
        raise UsageError(f"{path.parent} has no golden outputs to compare with", hint=hint)
    try:
        with safe_open(path, "np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be read: {error}", hint="copy it again, or record it anew") from error


def _rows_equal(recorded: Any, now: Any) -> list[bool]:
    if recorded is None or now is None or recorded.shape != now.shape:
        return [False] * len(TEXTS)
    return [bool(np.array_equal(before, after)) for before, after in zip(recorded, now, strict=True)]


def _difference(recorded: Any, now: FloatArray) -> float:
    if recorded is None or recorded.shape != now.shape:
        return float("inf")
    return float(np.abs(recorded - now).max())
