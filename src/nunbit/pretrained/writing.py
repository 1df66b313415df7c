"""Settings and tensors → a folder that this project, `transformers` and open_clip open with equal outputs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from nunbit.clip import Clip
from nunbit.config import to_plain
from nunbit.errors import UsageError
from nunbit.golden import FILE as GOLDEN_FILE
from nunbit.golden import READABLE
from nunbit.preprocessing import Preprocessing
from nunbit.pretrained import open_clip_folder, transformers_folder
from nunbit.pretrained.image_processor import image_processor_config
from nunbit.pretrained.open_clip_names import open_clip_rules
from nunbit.pretrained.parts import CARD, Settings, write_json
from nunbit.pretrained.reading import FORMAT_VERSION, OWN_FILE, OWN_WEIGHTS
from nunbit.pretrained.tensor_names import to_theirs
from nunbit.pretrained.tokenizer_files import save_tokenizer, transformers_cuts_alike
from nunbit.pretrained.transformers_names import clip_rules

_OURS = (
    OWN_FILE,
    OWN_WEIGHTS,
    GOLDEN_FILE,
    CARD,
    "config.json",
    "model.safetensors",
    open_clip_folder.CONFIG,
    open_clip_folder.WEIGHTS[0],
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "spiece.model",
)
"""All that a saved folder may hold."""


def write_pretrained(folder: Path, model: Clip, settings: Settings, card: dict[str, str]) -> list[str]:
    """Write a model folder, whole or not at all; one that was saved before is replaced.

    Args:
        folder: Made when it is not there.
        model: The weights.
        settings: The rest.
        card: Name, licence and fingerprint.

    Returns:
        The formats that it is in: ``transformers``, ``open_clip``, or ``nunbit`` where neither has the architecture.

    Raises:
        UsageError: The folder holds something that was not saved here.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (folder / OWN_FILE).is_file():
        raise UsageError(f"{folder} holds other files already", hint="give a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".saving-", dir=folder) as scratch:
        draft = Path(scratch)
        formats = _write(draft, model, settings, card)
        new = {path.name for path in draft.iterdir()}
        for name in _OURS:  # what an earlier model left would be read instead of this one
            if name not in new:
                (folder / name).unlink(missing_ok=True)
        for name in new:
            (draft / name).replace(folder / name)
    return formats


def _write(folder: Path, model: Clip, settings: Settings, card: dict[str, str]) -> list[str]:
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    save_tokenizer(settings.tokenizer, folder)
    write_json(folder / "preprocessor_config.json", image_processor_config(settings.preprocessing))
    formats = []
    if transformers_folder.expressible(settings.config) and transformers_cuts_alike(settings.tokenizer.config):
        formats.append("transformers")
        config = transformers_folder.write_config(settings.config, settings.tokenizer.config.pad_token_id)
        write_json(folder / "config.json", config)
        _save(to_theirs(state, clip_rules(settings.config)), folder / transformers_folder.WEIGHTS[0])
    if (open_clip := _open_clip_config(settings)) is not None:
        formats.append("open_clip")
        write_json(folder / open_clip_folder.CONFIG, open_clip)
        _save(_open_clip_tensors(state, settings), folder / open_clip_folder.WEIGHTS[0])
    if not formats:
        formats.append("nunbit")
        _save(state, folder / OWN_WEIGHTS)
    own = {
        "format_version": FORMAT_VERSION,
        **card,
        "formats": formats,
        "model": to_plain(settings.config),
        "preprocessing": settings.preprocessing.to_dict(),
        "tokenizer": to_plain(settings.tokenizer.config),
    }
    write_json(folder / OWN_FILE, own)
    (folder / CARD).write_text(_card(card, formats), encoding="utf-8")
    return formats


def _open_clip_tensors(state: dict[str, Tensor], settings: Settings) -> dict[str, Tensor]:
    prefix = "text." if open_clip_folder.custom_text(settings.config) else ""
    tensors = to_theirs(state, open_clip_rules(settings.config, state, text_prefix=prefix))
    counters = {name: tensor for name, tensor in state.items() if name.endswith("num_batches_tracked")}
    return tensors | {name.replace("vision_encoder.", "visual.", 1): tensor for name, tensor in counters.items()}


def _card(card: dict[str, str], formats: list[str]) -> str:
    license_ = card["license"]
    return (
        f"---\nlicense: {license_ or 'unknown'}\n---\n# {card['name']}\n\n"
        f"Saved by nunbit. Opens with nunbit and with: {', '.join(formats)}.\n\n"
        f"- Licence of the weights: {license_ or 'not stated where they came from'}\n"
        f"- Fingerprint: `{card['fingerprint']}`\n"
    )


def _open_clip_config(settings: Settings) -> dict[str, Any] | None:
    preprocessing = settings.preprocessing
    if not isinstance(preprocessing, Preprocessing) or preprocessing.crop_fraction != 1:
        return None
    return open_clip_folder.write_config(settings.config, preprocessing, settings.tokenizer)


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    # transformers insists on this note; sharing memory, as parts of one tensor do, is not allowed in the format.
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})
    path.chmod(READABLE)
