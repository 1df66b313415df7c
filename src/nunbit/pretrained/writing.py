"""Settings and tensors → a folder that this project, `transformers` and open_clip open with equal outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from nunbit.clip import Clip
from nunbit.config import to_plain
from nunbit.golden import READABLE
from nunbit.preprocessing import Preprocessing
from nunbit.pretrained import open_clip_folder, transformers_folder
from nunbit.pretrained.image_processor import image_processor_config
from nunbit.pretrained.open_clip_names import open_clip_rules
from nunbit.pretrained.parts import Settings, write_json
from nunbit.pretrained.reading import OWN_FILE, OWN_WEIGHTS
from nunbit.pretrained.tensor_names import to_theirs
from nunbit.pretrained.tokenizer_files import save_tokenizer
from nunbit.pretrained.transformers_names import clip_rules

FORMAT_VERSION = 1


def write_pretrained(folder: Path, model: Clip, settings: Settings, card: dict[str, Any]) -> list[str]:
    """Write a model folder.

    Args:
        folder: Made when it is not there; files of the same names are replaced.
        model: The weights.
        settings: The rest.
        card: What ``nunbit.json`` should say besides: fingerprint, name, licence.

    Returns:
        The formats that it is in: ``transformers``, ``open_clip``, or ``nunbit`` where neither has the architecture.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    save_tokenizer(settings.tokenizer, folder)
    write_json(folder / "preprocessor_config.json", image_processor_config(settings.preprocessing))
    formats = []
    if transformers_folder.expressible(settings.config):
        formats.append("transformers")
        config = transformers_folder.write_config(settings.config, settings.tokenizer.config.pad_token_id)
        write_json(folder / "config.json", config)
        _save(to_theirs(state, clip_rules(settings.config)), folder / transformers_folder.WEIGHTS[0])
    if (config_ := _open_clip_config(settings)) is not None:
        formats.append("open_clip")
        write_json(folder / open_clip_folder.CONFIG, config_)
        prefix = "text." if open_clip_folder.custom_text(settings.config) else ""
        tensors = to_theirs(state, open_clip_rules(settings.config, state, text_prefix=prefix))
        counters = {n: t for n, t in state.items() if n.endswith("num_batches_tracked")}
        tensors |= {name.replace("vision_encoder.", "visual.", 1): tensor for name, tensor in counters.items()}
        _save(tensors, folder / open_clip_folder.WEIGHTS[0])
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
    return formats


def _open_clip_config(settings: Settings) -> dict[str, Any] | None:
    preprocessing = settings.preprocessing
    if not isinstance(preprocessing, Preprocessing) or preprocessing.crop_fraction != 1:
        return None
    return open_clip_folder.write_config(settings.config, preprocessing, settings.tokenizer.config)


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    # transformers insists on this note; sharing memory, as parts of one tensor do, is not allowed in the format.
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})
    path.chmod(READABLE)
