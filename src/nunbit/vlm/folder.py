"""A vision-language model as a folder: a description, tensors, a tokenizer where it has one of its own, a card.

Parts that come from packages are named and not copied: of the starter's eye nothing is written, of SmolLM2 its
corrections (LoRA) alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from nunbit.config import from_plain, to_plain
from nunbit.durable import replace_file
from nunbit.errors import UnsupportedModel, WeightsError
from nunbit.language_model import LanguageModel, load_language_model, make_language_model
from nunbit.language_model.transformers_model import read_tokenizer_folder
from nunbit.lora import LoraConfig, add_lora, merge_lora
from nunbit.packaged_files import sha256_of
from nunbit.pretrained.parts import read_json
from nunbit.pretrained.weights import read_tensors
from nunbit.vlm.config import VlmConfig
from nunbit.vlm.model import VisionLanguageModel

CONFIG, WEIGHTS, CARD = "nunbit_vlm.json", "model.safetensors", "README.md"
TOKENIZER, INSTRUCTION_TOKENIZER = "tokenizer", "instruction_tokenizer"
FORMAT = 1
_LISTED = 5  # tensors that are named in a message


@dataclass(frozen=True, slots=True, kw_only=True)
class VlmDescription:
    """What a folder says of its model.

    Attributes:
        config: What it is.
        language_model: A name of `nunbit.language_model.NAMES`: its weights are those of that one, but for what the
            folder has; None: the folder has all.
        lora: Corrections that the folder has.
        license: Of what the folder has.
        provenance: How it came about, in plain values.
    """

    config: VlmConfig
    language_model: str | None = None
    lora: LoraConfig | None = None
    license: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)


def write_vlm(
    folder: Path, model: VisionLanguageModel, described: VlmDescription, *, card: str = "", half: bool = False
) -> None:
    """Write a model folder.

    Args:
        folder: Made when it is not there; the description is written last, so that half a folder is told from a whole.
        model: With corrections, where ``described.lora`` says so.
        described: What it is.
        card: ``README.md``.
        half: Keep tensors in 16 bits (float16).
    """
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    stored = _stored(model, described)
    tensors = {name: (value.half() if half else value).cpu().contiguous() for name, value in stored.items()}
    replace_file(folder / WEIGHTS, lambda file: file.write(save(tensors)))
    if described.language_model is None:
        tokenizer: Any = model.language_model.tokenizer
        tokenizer.save_pretrained(folder / TOKENIZER)
    if model.instruction_tokenizer is not None:
        instruction_tokenizer: Any = model.instruction_tokenizer
        instruction_tokenizer.save_pretrained(folder / INSTRUCTION_TOKENIZER)
    if card:
        replace_file(folder / CARD, lambda file: file.write(card.encode()))
    content = {"format": FORMAT, "sha256": sha256_of(folder / WEIGHTS), **to_plain(described)}
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    replace_file(folder / CONFIG, lambda file: file.write(text.encode()))


def read_description(folder: Path) -> VlmDescription:
    """What a folder says of its model.

    Raises:
        UnsupportedModel: There is no description, or one of another version.
    """
    content = read_json(folder / CONFIG)
    if content.pop("format", None) != FORMAT:
        raise UnsupportedModel(f"{folder / CONFIG} is of another version than {FORMAT}", hint="update nunbit")
    content.pop("sha256", None)
    return from_plain(VlmDescription, content, where=str(folder / CONFIG))


def read_vlm(folder: Path) -> VisionLanguageModel:
    """Open a model folder, in float32, corrections added to their weights.

    Raises:
        UnsupportedModel: It is no such folder.
        ModelNotFound: A part that it takes from a package is not installed.
        WeightsError: Tensors are missing, unexpected, misshapen or damaged.
    """
    described = read_description(folder)
    model = VisionLanguageModel(described.config, _language_model(folder, described))
    if described.lora is not None:
        add_lora(model, described.lora)
    expected = _stored(model, described)
    if sha256_of(folder / WEIGHTS) != read_json(folder / CONFIG)["sha256"]:
        raise WeightsError(f"{folder / WEIGHTS} is not the file that was written", hint="copy the folder again")
    tensors = read_tensors([folder / WEIGHTS])
    wrong = sorted(
        name
        for name in expected.keys() | tensors.keys()
        if name not in tensors or name not in expected or tensors[name].shape != expected[name].shape
    )
    if wrong:
        listed = ", ".join(wrong[:_LISTED])
        raise WeightsError(f"{folder}: {len(wrong)} tensors do not fit the description: {listed}")
    model.load_state_dict({name: value.to(expected[name].dtype) for name, value in tensors.items()}, strict=False)
    merge_lora(model)
    if (folder / INSTRUCTION_TOKENIZER).is_dir():
        model.instruction_tokenizer = read_tokenizer_folder(folder / INSTRUCTION_TOKENIZER)
    return model.eval().requires_grad_(False)


def _language_model(folder: Path, described: VlmDescription) -> LanguageModel:
    if described.language_model is not None:
        return load_language_model(described.language_model)
    return make_language_model(described.config.language_model, read_tokenizer_folder(folder / TOKENIZER))


def _stored(model: VisionLanguageModel, described: VlmDescription) -> dict[str, Tensor]:
    """Tensors that a folder has: what packages have is left out, and one that has two names comes once."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in model.state_dict().items():
        packaged = name.startswith("language_model.") and described.language_model is not None
        learned = name.endswith((".down", ".up")) and ".parametrizations." in name
        if (learned or not packaged) and value.data_ptr() not in seen:
            seen.add(value.data_ptr())
            found[name] = value
    return found
