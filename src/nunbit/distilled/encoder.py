"""A distilled encoder: its own picture tower and its teacher's text side, as one dual encoder.

A folder holds ``config.json`` (what it is, who the teacher was, how it came about), ``model.safetensors`` (the picture
tower) and a card. The teacher is not copied: it is opened when the first text comes, and must be the very one that
taught.

Shapes: B batch, N texts, S side in pixels, E embedding.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nunbit.config import from_plain, to_plain
from nunbit.distilled.config import DistilledConfig
from nunbit.durable import replace_file
from nunbit.encode import Encoder, EncoderInfo
from nunbit.errors import ConfigError, ModelError, ModelNotFound, WeightsError
from nunbit.packaged_files import sha256_of

if TYPE_CHECKING:
    from torch import Tensor

    from nunbit.distilled.tower import PictureTower
    from nunbit.programs import Program
    from nunbit.types import FloatArray

MODEL_TYPE = "distilled"
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"

OpenTeacher = Callable[[str], Encoder]
"""What the configuration calls the teacher → the teacher, on torch."""


class Distilled:
    """What `nunbit.encode.Encoder` runs: a student's picture tower, its teacher's text side.

    Args:
        folder: As `write_distilled` wrote it.
        config: As it is there.
        checksum: sha256 of the weights.
        open_teacher: Opens the teacher.
    """

    def __init__(self, folder: Path, config: DistilledConfig, checksum: str, open_teacher: OpenTeacher) -> None:
        self._folder, self._config, self._open_teacher = folder, config, open_teacher
        self.fingerprint = fingerprint(config, checksum)
        self.logit_scale = config.teacher.logit_scale
        self.logit_bias = config.teacher.logit_bias

    @cached_property
    def model(self) -> PictureTower:
        """The picture tower, a torch module ready for inference."""
        from nunbit.distilled.tower import PictureTower
        from nunbit.pretrained.tensor_names import rename
        from nunbit.pretrained.weights import fit_tensors, read_tensors
        from nunbit.starter.picture_tower import prepare_for_inference

        tower = PictureTower(self._config.tower, self._config.embedding_size)
        rules = [rename(name, name) for name in tower.state_dict() if not name.endswith("num_batches_tracked")]
        path = self._folder / WEIGHTS
        tower.load_state_dict(fit_tensors(read_tensors([path]), tower, rules, where=str(path)))
        return prepare_for_inference(tower.eval())

    @cached_property
    def teacher(self) -> Encoder:
        """The encoder whose words it understands.

        Raises:
            ModelNotFound: It is not where it was.
            WeightsError: It is another one by now.
        """
        expected = self._config.teacher
        hint = f"put the one that taught there, or its place into teacher.model of {self._folder / CONFIG}"
        try:
            teacher = self._open_teacher(expected.model)
        except ModelNotFound as error:
            message = f"{self._folder} takes its words from its teacher, and {error.message}"
            raise ModelNotFound(message, hint=hint) from error
        if teacher.fingerprint != expected.fingerprint:
            raise WeightsError(
                f"{self._folder} was taught by {expected.model} with the fingerprint {expected.fingerprint[:16]}…; "
                f"what is there now has {teacher.fingerprint[:16]}…",
                hint=hint,
            )
        return teacher

    @property
    def tokenizer(self) -> Any:
        """The teacher's."""
        return self.teacher.tokenizer

    def encode_pixels(self, pixel_values: FloatArray | Sequence[FloatArray]) -> FloatArray:
        """(B, 3, S, S) float32 → (B, E) unit rows."""
        import torch

        tower = self.model  # read outside of inference mode, whose tensors never learn again
        pixels = torch.from_numpy(np.asarray(pixel_values)).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            rows: FloatArray = tower(pixels).numpy()
        return rows

    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        """N texts → (N, E) unit rows, the teacher's."""
        return self.teacher.encode_text(texts)

    def programs(self) -> dict[str, Program]:
        """``image`` of (B, 3, S, S) pixels; and ``text`` where the teacher has one that can be compiled."""
        import torch

        from nunbit.programs import Program

        size = self._config.preprocessing.image_size
        found = {"image": Program(self.model, (self.model,), torch.zeros(2, 3, size, size), {0: ("batch", None)})}
        with suppress(ModelError):  # of a teacher of pictures of any size; torch then embeds texts
            programs = self.teacher.towers.programs()
            if "text" in programs:
                found["text"] = programs["text"]
        return found

    def save(self, folder: Path) -> None:
        """Copy the model folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in (CONFIG, WEIGHTS, CARD):
            if (self._folder / name).is_file() and folder.resolve() != self._folder.resolve():
                shutil.copy(self._folder / name, folder / name)


def load_distilled(folder: Path, name: str, open_teacher: OpenTeacher) -> Encoder:
    """Open a distilled encoder without reading its towers yet.

    Args:
        folder: As `write_distilled` wrote it.
        name: What the user called it.
        open_teacher: Opens the teacher when a text comes.

    Raises:
        ModelNotFound: A file is missing.
        ConfigError: The configuration cannot be understood.
        WeightsError: The weights are not those that ``config.json`` describes.
    """
    config, recorded = read_config_file(folder)
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise ModelNotFound(f"{folder} has no {weights.name}")
    checksum = sha256_of(weights)
    if checksum != recorded:
        message = f"{weights} has sha256 {checksum[:16]}…, its {CONFIG} says {recorded[:16]}…"
        raise WeightsError(message, hint="copy the model folder again, both files together")
    info = EncoderInfo(name=name, embedding_size=config.embedding_size, preprocessing=config.preprocessing)
    return Encoder(Distilled(folder, config, checksum, open_teacher), info)


def read_config_file(folder: Path) -> tuple[DistilledConfig, str]:
    """The configuration of a folder, and the sha256 that its weights had when they were written.

    Raises:
        ConfigError: It cannot be understood.
    """
    try:
        content = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        checksum = content.pop("sha256")
    except (ValueError, KeyError, AttributeError) as error:
        raise ConfigError(f"{folder / CONFIG} is damaged: {error!r}", hint="copy the model folder again") from error
    content.pop("model_type", None)
    return from_plain(DistilledConfig, content, where=str(folder / CONFIG)), str(checksum)


def write_distilled(folder: Path, config: DistilledConfig, state: Mapping[str, Tensor], name: str) -> None:
    """Write a model folder that `nunbit.load` opens.

    Args:
        folder: Made when it is not there.
        config: All but the weights.
        state: Of the `PictureTower`, after training.
        name: What it is called, for the card.
    """
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
    data = save(tensors, metadata={"format": "pt"})
    content = {"model_type": MODEL_TYPE, **to_plain(config), "sha256": hashlib.sha256(data).hexdigest()}
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    replace_file(folder / WEIGHTS, lambda file: file.write(data))
    replace_file(folder / CONFIG, lambda file: file.write(text.encode()))
    card = _card(name, config, fingerprint(config, content["sha256"])).encode()
    replace_file(folder / CARD, lambda file: file.write(card))


def fingerprint(config: DistilledConfig, checksum: str) -> str:
    """sha256 (hex) over all that changes an answer: tower, weights, preprocessing, and the teacher with its texts.

    Args:
        config: Of the encoder.
        checksum: sha256 of its weights.
    """
    answer_changers = {
        "model_type": MODEL_TYPE,
        "tower": to_plain(config.tower),
        "weights": checksum,
        "preprocessing": config.preprocessing.to_dict(),
        "teacher": config.teacher.fingerprint,
        "precision": str(np.dtype(np.float32)),
    }
    return hashlib.sha256(json.dumps(answer_changers, sort_keys=True).encode()).hexdigest()


def _card(name: str, config: DistilledConfig, own: str) -> str:
    lines = [
        f"---\nlicense: {config.license or 'unknown'}\n---\n# {name}\n",
        f"A picture tower ({config.tower.kind}, {config.preprocessing.image_size} px) that nunbit distilled from "
        f"{config.teacher.model}. It answers in its teacher's space and takes its words from it, so the teacher has to "
        "be there.\n",
        f"- Licence of the weights: {config.license or 'not stated'}",
        f"- Fingerprint: `{own}`",
        f"- Teacher's fingerprint: `{config.teacher.fingerprint}`",
        *(f"- {key}: {value}" for key, value in config.provenance.items()),
    ]
    return "\n".join(lines) + "\n"
