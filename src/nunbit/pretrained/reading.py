"""A model folder or archive of any known kind → settings and tensors in this project's terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from nunbit.clip import ClipConfig
from nunbit.config import from_plain
from nunbit.errors import UnsupportedModel
from nunbit.preprocessing import AnyPreprocessing, FlexiblePreprocessing, Preprocessing
from nunbit.pretrained import open_clip_folder, transformers_folder
from nunbit.pretrained.image_processor import read_preprocess_cfg
from nunbit.pretrained.open_clip_names import IGNORED as OPEN_CLIP_IGNORED
from nunbit.pretrained.open_clip_names import open_clip_rules
from nunbit.pretrained.openai_archive import read_openai_archive
from nunbit.pretrained.parts import Pretrained, Settings, blank_model, read_json, read_license, with_end_token
from nunbit.pretrained.tensor_names import rename
from nunbit.pretrained.tokenizer_files import read_clip_tokenizer
from nunbit.pretrained.transformers_names import IGNORED as TRANSFORMERS_IGNORED
from nunbit.pretrained.transformers_names import clip_rules
from nunbit.pretrained.weights import find_weights, fit_tensors, has_weights, read_tensors
from nunbit.text import TokenizerConfig
from nunbit.text.saved import restore_tokenizer
from nunbit.text_encoder import TextConfig
from nunbit.vision_encoder import ResNetConfig, VisionConfig, VitConfig

OWN_FILE = "nunbit.json"
FORMAT_VERSION = 1
OWN_WEIGHTS = "nunbit_model.safetensors"
"""Weights under this project's own names, for architectures that no other format has."""
_ARCHIVE_HEADS = 64  # width of a head in all of OpenAI's models


def read_pretrained(path: Path) -> Pretrained:
    """Read a model folder (ours, of `transformers`, of open_clip) or one of OpenAI's ``.pt`` archives.

    Raises:
        UnsupportedModel: It is none of these, or has parts that are not known here.
        WeightsError: Tensors are missing, unexpected, misshapen or damaged.
    """
    try:
        return _read_archive(path) if path.is_file() else _read_folder(path)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, IndexError) as error:
        # Files of others may hold anything where a number or a name is expected.
        reason = f"{type(error).__name__}: {error}"
        hint = "a configuration file there is damaged, or from a version that is not known here; copy the folder again"
        raise UnsupportedModel(f"{path} cannot be understood ({reason})", hint=hint) from error


def _read_folder(path: Path) -> Pretrained:
    if (path / OWN_FILE).is_file():
        settings = read_own_settings(path)
        return Pretrained(settings, _own_state(path, settings.config), str(read_json(path / OWN_FILE)["license"]))
    open_clip = (path / open_clip_folder.CONFIG).is_file()
    if _is_transformers(path) and (has_weights(path, transformers_folder.WEIGHTS) or not open_clip):
        settings = transformers_folder.read_settings(path)
        return Pretrained(settings, _transformers_state(path, settings.config), read_license(path))
    if open_clip:
        settings = open_clip_folder.read_settings(path)
        return Pretrained(settings, _open_clip_state(path, settings.config), read_license(path))
    known = ", ".join(transformers_folder.MODEL_TYPES)
    raise UnsupportedModel(f"{path} has neither a config.json of {known}, nor {open_clip_folder.CONFIG}")


def read_own_settings(folder: Path) -> Settings:
    """Read what `save_pretrained` recorded, which says more than the formats of others can."""
    content = read_json(folder / OWN_FILE)
    where = str(folder / OWN_FILE)
    if content["format_version"] != FORMAT_VERSION:
        found = content["format_version"]
        raise UnsupportedModel(f"{where} has format version {found}, known is {FORMAT_VERSION}", hint="update nunbit")
    tokenizer = from_plain(TokenizerConfig, content["tokenizer"], where=f"{where}: tokenizer")
    return Settings(
        config=from_plain(ClipConfig, content["model"], where=f"{where}: model"),
        preprocessing=_restore_preprocessing(content["preprocessing"], where),
        tokenizer=restore_tokenizer(folder, tokenizer),
    )


def _restore_preprocessing(content: Mapping[str, Any], where: str) -> AnyPreprocessing:
    where = f"{where}: preprocessing"
    if "max_num_patches" in content:
        return from_plain(FlexiblePreprocessing, content, where=where)
    return from_plain(Preprocessing, content, where=where)


def _is_transformers(folder: Path) -> bool:
    config = folder / "config.json"
    return config.is_file() and read_json(config).get("model_type") in transformers_folder.MODEL_TYPES


def _own_state(folder: Path, config: ClipConfig) -> dict[str, Tensor]:
    """The weights in the first of the formats that are there; any of them may have been deleted to save space."""
    if has_weights(folder, transformers_folder.WEIGHTS):
        return _transformers_state(folder, config)
    if has_weights(folder, open_clip_folder.WEIGHTS[:1]):
        return _open_clip_state(folder, config)
    model = blank_model(config)
    rules = [rename(name, name) for name in model.state_dict() if not name.endswith("num_batches_tracked")]
    return fit_tensors(read_tensors(find_weights(folder, [OWN_WEIGHTS])), model, rules, where=str(folder))


def _transformers_state(folder: Path, config: ClipConfig) -> dict[str, Tensor]:
    tensors = read_tensors(find_weights(folder, transformers_folder.WEIGHTS))
    rules = clip_rules(config)
    return fit_tensors(tensors, blank_model(config), rules, where=str(folder), ignored=TRANSFORMERS_IGNORED)


def _open_clip_state(folder: Path, config: ClipConfig) -> dict[str, Tensor]:
    return _fit_open_clip(read_tensors(find_weights(folder, open_clip_folder.WEIGHTS)), config, str(folder))


def _fit_open_clip(tensors: Mapping[str, Tensor], config: ClipConfig, where: str) -> dict[str, Tensor]:
    model = blank_model(config)
    prefix = "text." if "text.token_embedding.weight" in tensors else ""
    rules = open_clip_rules(config, model.state_dict(), text_prefix=prefix)
    return fit_tensors(tensors, model, rules, where=where, ignored=OPEN_CLIP_IGNORED)


def _read_archive(path: Path) -> Pretrained:
    tensors = read_openai_archive(path)
    try:
        config = archive_config(tensors)
    except KeyError as error:
        raise UnsupportedModel(f"{path} holds no CLIP: there is no tensor {error}") from error
    tokenizer = read_clip_tokenizer(path.parent, config, "open_clip")
    config = with_end_token(config, tokenizer, highest=True)
    settings = Settings(config, read_preprocess_cfg({}, config.vision.image_size), tokenizer)
    return Pretrained(settings, _fit_open_clip(tensors, config, str(path)), "MIT")


@dataclass(frozen=True, slots=True)
class _Shapes:
    """Sizes, told by the shapes of an archive's tensors."""

    tensors: Mapping[str, Tensor]

    def size(self, name: str, axis: int) -> int:
        return int(self.tensors[name].shape[axis])

    def count(self, prefix: str) -> int:
        depth = prefix.count(".")
        return len({name.split(".")[depth] for name in self.tensors if name.startswith(prefix)})


def archive_config(tensors: Mapping[str, Tensor]) -> ClipConfig:
    """The architecture of OpenAI's archives, which carry none: told by shapes, with quick GELU."""
    shapes = _Shapes(tensors)
    size, width = shapes.size("text_projection", 1), shapes.size("ln_final.weight", 0)
    text = TextConfig(
        vocab_size=shapes.size("token_embedding.weight", 0),
        max_position_embeddings=shapes.size("positional_embedding", 0),
        hidden_size=width,
        num_hidden_layers=shapes.count("transformer.resblocks."),
        num_attention_heads=width // _ARCHIVE_HEADS,
        intermediate_size=shapes.size("transformer.resblocks.0.mlp.c_fc.weight", 0),
        hidden_act="quick_gelu",
        layer_norm_eps=1e-5,
        causal=True,
        pooling="end_token",
        end_token_id=shapes.size("token_embedding.weight", 0) - 1,
        projection_size=size,
        projection_bias=False,
    )
    return ClipConfig(vision=_archive_vision(shapes, size), text=text, objective="softmax")


def _archive_vision(shapes: _Shapes, size: int) -> VisionConfig:
    if "visual.proj" not in shapes.tensors:
        first, second, third, fourth = (shapes.count(f"visual.layer{number}.") for number in (1, 2, 3, 4))
        width = shapes.size("visual.layer1.0.conv1.weight", 0)
        side = round((shapes.size("visual.attnpool.positional_embedding", 0) - 1) ** 0.5)
        return ResNetConfig(
            image_size=32 * side,
            layers=(first, second, third, fourth),
            width=width,
            num_attention_heads=width * 32 // _ARCHIVE_HEADS,
            projection_size=size,
        )
    width, patch = (shapes.size("visual.conv1.weight", axis) for axis in (0, 3))
    side = round((shapes.size("visual.positional_embedding", 0) - 1) ** 0.5)
    return VitConfig(
        image_size=patch * side,
        patch_size=patch,
        hidden_size=width,
        num_hidden_layers=shapes.count("visual.transformer.resblocks."),
        num_attention_heads=width // _ARCHIVE_HEADS,
        intermediate_size=shapes.size("visual.transformer.resblocks.0.mlp.c_fc.weight", 0),
        hidden_act="quick_gelu",
        layer_norm_eps=1e-5,
        class_token=True,
        patch_bias=False,
        pre_norm=True,
        pooling="class_token",
        projection_size=size,
        position_interpolation="bicubic_antialias",
    )
