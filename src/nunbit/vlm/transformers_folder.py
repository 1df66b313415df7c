"""Folders of `transformers` with whole vision-language models: LLaVA, BLIP-2, InstructBLIP, SmolVLM.

Nothing is fetched, weights are read from safetensors alone, and code that a folder brings along is never run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nunbit.errors import UnsupportedModel, UsageError
from nunbit.language_model.transformers_model import fill_language_model, read_tokenizer_folder
from nunbit.pretrained.image_processor import PREPROCESSOR
from nunbit.pretrained.parts import read_json, write_json
from nunbit.pretrained.tensor_names import to_theirs
from nunbit.pretrained.transformers_folder import WEIGHTS
from nunbit.pretrained.weights import find_weights, fit_tensors, read_tensors
from nunbit.vlm.assembly import add_marks
from nunbit.vlm.model import VisionLanguageModel
from nunbit.vlm.transformers_names import COUNTERS, LANGUAGE_MODEL, known_names, vlm_rules, written_names
from nunbit.vlm.transformers_settings import family_of, read_settings, write_processor, write_settings

CONFIG = "config.json"
_Q_FORMER_TOKENIZER = "qformer_tokenizer"
_IMAGE = "<image>"


def read_transformers_vlm(folder: Path) -> VisionLanguageModel:
    """Open a folder as ``save_pretrained`` of `transformers` writes it, in float32.

    How conversations are written down is that of the family's preset, not the folder's chat template.

    Args:
        folder: With ``config.json``, safetensors, a tokenizer and the image processor's settings.

    Raises:
        UnsupportedModel: A family that is not known here, no safetensors, no tokenizer, or one without the marks.
        WeightsError: Tensors are missing, unexpected, misshapen or damaged.
    """
    settings = read_settings(read_json(folder / CONFIG), folder)
    tokenizer = read_tokenizer_folder(folder)
    known = tokenizer.get_vocab()
    if missing := [name for name in settings.config.token_names() if name not in known]:
        hint = "marks would be letters: copy the tokenizer from where the model is from"
        raise UnsupportedModel(f"{folder}: its tokenizer lacks {', '.join(missing[:5])}", hint=hint)
    add_marks(tokenizer, settings.config)
    tensors = known_names(read_tensors(find_weights(folder, WEIGHTS)))
    words = {
        name.removeprefix(LANGUAGE_MODEL): tensor for name, tensor in tensors.items() if name.startswith(LANGUAGE_MODEL)
    }
    rest = {name: tensor for name, tensor in tensors.items() if not name.startswith(LANGUAGE_MODEL)}
    language_model = fill_language_model(settings.config.language_model, words, tokenizer, where=str(folder))
    with torch.device("meta"):
        model = VisionLanguageModel(settings.config, language_model)
    rules = vlm_rules(settings.config, settings.family)
    state = fit_tensors(rest, model, rules, where=str(folder), ignored=COUNTERS)
    model.load_state_dict(state, strict=False, assign=True)
    if (folder / _Q_FORMER_TOKENIZER).is_dir():
        model.instruction_tokenizer = read_tokenizer_folder(folder / _Q_FORMER_TOKENIZER)
    elif model.reads_instruction:
        raise UnsupportedModel(f"{folder} has no {_Q_FORMER_TOKENIZER}, which the Q-Former reads questions with")
    return model.eval().requires_grad_(False)


def write_transformers_vlm(folder: Path, model: VisionLanguageModel) -> None:
    """Write a folder that `transformers` opens.

    Args:
        folder: Made when it is not there; the configuration is written last.
        model: One that `transformers` has, too. Its tokenizer is given the token ``<image>`` where it has none.

    Raises:
        UnsupportedModel: `transformers` has no such model, or it has no row left for ``<image>``.
        UsageError: The model has corrections that are not merged.
    """
    from safetensors.torch import save_file

    family = family_of(model.config)
    if any(".parametrizations." in name for name in model.state_dict()):
        raise UsageError("the model has corrections beside its weights", hint="add them to these: merge_lora(model)")
    image_id = _image_token(model)
    tensors = to_theirs(model.state_dict(), vlm_rules(model.config, family)) | _words(model)
    folder.mkdir(parents=True, exist_ok=True)
    written = {name: tensor.cpu().contiguous() for name, tensor in written_names(tensors, family).items()}
    save_file(written, folder / WEIGHTS[0], metadata={"format": "pt"})
    write_json(folder / PREPROCESSOR, write_processor(model.config, family))
    tokenizer: Any = model.language_model.tokenizer
    tokenizer.save_pretrained(folder)
    if model.reads_instruction:
        instruction_tokenizer: Any = model.instruction_tokenizer or tokenizer
        instruction_tokenizer.save_pretrained(folder / _Q_FORMER_TOKENIZER)
    text_config = model.language_model.model.config.to_dict()
    write_json(folder / CONFIG, write_settings(model.config, family, text_config, image_id))


def _image_token(model: VisionLanguageModel) -> int:
    tokenizer: Any = model.language_model.tokenizer
    known = tokenizer.get_vocab()
    number = known.get(_IMAGE, len(tokenizer))
    if number >= model.language_model.vocab_size:
        message = f"transformers puts a token {_IMAGE} where pictures stand, and the language model has no row for it"
        raise UnsupportedModel(message, hint="model.language_model.model.resize_token_embeddings first")
    if _IMAGE not in known:
        tokenizer.add_tokens([_IMAGE], special_tokens=True)
    return int(number)


def _words(model: VisionLanguageModel) -> dict[str, Tensor]:
    """The language model's tensors; one that has two names comes once."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.language_model.model.state_dict().items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            found[LANGUAGE_MODEL + name] = tensor
    return found
