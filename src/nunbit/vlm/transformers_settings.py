"""Configurations of `transformers` ↔ ours: whole vision-language models.

What a ``config.json`` does not say, how conversations are written down and what learns in which stage, is that of the
family's preset.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from nunbit.errors import UnsupportedModel
from nunbit.language_model.transformers_model import make_config
from nunbit.preprocessing import Preprocessing
from nunbit.pretrained.image_processor import (
    PREPROCESSOR,
    image_processor_config,
    read_image_processor,
    read_lone_look,
    read_processor,
)
from nunbit.pretrained.parts import ACTIVATION_NAMES, activation, square
from nunbit.pretrained.transformers_folder import block_sizes, written_sizes
from nunbit.projector import MlpConfig, PixelShuffleConfig, QFormerConfig
from nunbit.vision_encoder import VitConfig
from nunbit.vlm.assembly import read_preset
from nunbit.vlm.config import EyeConfig, TilesConfig, VlmConfig
from nunbit.vlm.transformers_names import Family

_FAMILIES: Mapping[str, Family] = {
    "llava": "llava",
    "blip-2": "blip-2",
    "instructblip": "instructblip",
    "smolvlm": "smolvlm",
    "idefics3": "smolvlm",
}
_VISION_TYPES: Mapping[Family, tuple[str, ...]] = {
    "llava": ("clip_vision_model",),
    "blip-2": ("blip_2_vision_model",),
    "instructblip": ("instructblip_vision_model",),
    "smolvlm": ("smolvlm_vision", "idefics3_vision"),
}
_ARCHITECTURES: Mapping[Family, str] = {
    "llava": "LlavaForConditionalGeneration",
    "blip-2": "Blip2ForConditionalGeneration",
    "instructblip": "InstructBlipForConditionalGeneration",
    "smolvlm": "SmolVLMForConditionalGeneration",
}
_REMEDY = "write_vlm writes any model, in this project's own format"


@dataclass(frozen=True, slots=True)
class TheirSettings:
    """What a folder of `transformers` says.

    Attributes:
        family: Which of those that are known.
        config: The model.
    """

    family: Family
    config: VlmConfig


def read_settings(content: Mapping[str, Any], folder: Path) -> TheirSettings:
    """Read a ``config.json``, and what the folder says of pictures.

    Args:
        content: The configuration.
        folder: With the processor's settings.

    Raises:
        UnsupportedModel: A family that is not known here, or one with a choice that is not.
    """
    family = _FAMILIES.get(str(content.get("model_type")))
    if family is None:
        hint = f"known here: {', '.join(_FAMILIES)}; models of other kinds are reached over a server's API"
        raise UnsupportedModel(f"{folder} is a {content.get('model_type')!r} model", hint=hint)
    theirs = make_config(content)
    if theirs.vision_config.model_type not in _VISION_TYPES[family]:
        eye = theirs.vision_config.model_type
        raise UnsupportedModel(f"{folder}: a {family} with an eye of the kind {eye!r} is not known here")
    read = {"llava": _read_llava, "blip-2": _read_blip, "instructblip": _read_blip, "smolvlm": _read_smolvlm}[family]
    config = replace(read(theirs, folder), language_model=theirs.text_config.to_dict())
    return TheirSettings(family, config)


def _read_llava(theirs: Any, folder: Path) -> VlmConfig:
    if not isinstance(theirs.vision_feature_layer, int):
        raise UnsupportedModel(f"{folder}: patches from several layers ({theirs.vision_feature_layer})")
    preset = read_preset("llava-1.5")
    eye = replace(
        _read_eye(preset, theirs, _fixed(folder)),
        layer=theirs.vision_feature_layer,
        class_token=theirs.vision_feature_select_strategy == "full",
    )
    projector = MlpConfig(
        hidden_act=activation(theirs.projector_hidden_act), bias=bool(theirs.multimodal_projector_bias)
    )
    return replace(preset, eye=eye, projector=projector)


def _read_blip(theirs: Any, folder: Path) -> VlmConfig:
    if not theirs.vision_config.qkv_bias:
        raise UnsupportedModel(f"{folder}: an eye whose queries have no biases is not known here")
    sizes = theirs.qformer_config
    reads = theirs.model_type == "instructblip"
    if not reads and sizes.use_qformer_text_input:
        raise UnsupportedModel(f"{folder}: a BLIP-2 whose Q-Former reads texts is not known here")
    plain = "blip2-flan-t5" if theirs.text_config.is_encoder_decoder else "blip2-opt"
    preset = read_preset("instructblip" if reads else plain)
    projector = QFormerConfig(
        num_queries=int(theirs.num_query_tokens),
        **block_sizes(sizes.to_dict()),
        cross_attention_frequency=int(sizes.cross_attention_frequency),
        vocab_size=int(sizes.vocab_size) if reads else None,
        max_position_embeddings=int(sizes.max_position_embeddings),
    )
    return replace(preset, eye=_read_eye(preset, theirs, _fixed(folder)), projector=projector)


def _read_smolvlm(theirs: Any, folder: Path) -> VlmConfig:
    preset = read_preset("smolvlm")
    settings = read_processor(folder)
    side, longest = (int(settings[name]["longest_edge"]) for name in ("max_image_size", "size"))
    tiles = TilesConfig(max_side=longest) if settings.get("do_image_splitting", True) else None
    eye = _read_eye(preset, theirs, read_lone_look(settings, side, folder / PREPROCESSOR))
    projector = PixelShuffleConfig(factor=int(theirs.scale_factor))
    return replace(preset, eye=eye, projector=projector, tiles=tiles)


def _read_eye(preset: VlmConfig, theirs: Any, preprocessing: Preprocessing) -> EyeConfig:
    """The preset's, in the sizes of a configuration."""
    assert isinstance(preset.eye, EyeConfig) and isinstance(preset.eye.vision, VitConfig)
    section = theirs.vision_config.to_dict()
    vision = replace(
        preset.eye.vision,
        **block_sizes(section),
        image_size=square(section["image_size"], "image_size"),
        patch_size=square(section["patch_size"], "patch_size"),
    )
    return replace(preset.eye, vision=vision, preprocessing=preprocessing)


def _fixed(folder: Path) -> Preprocessing:
    found = read_image_processor(folder)
    if not isinstance(found, Preprocessing):
        raise UnsupportedModel(f"{folder}: pictures of many sizes are not known here")
    return found


def family_of(config: VlmConfig) -> Family:
    """The family of `transformers` that has a model like this.

    Raises:
        UnsupportedModel: There is none.
    """
    kinds = {MlpConfig: ("llava",), PixelShuffleConfig: ("smolvlm",), QFormerConfig: ("blip-2", "instructblip")}
    families = cast("tuple[Family, ...]", kinds.get(type(config.projector), ()))
    if isinstance(config.projector, QFormerConfig):
        families = families[1:] if config.projector.vocab_size is not None else families[:1]
    if not families or not isinstance(config.eye, EyeConfig) or not isinstance(config.eye.vision, VitConfig):
        raise UnsupportedModel(f"transformers has no model like this, with {config.projector}", hint=_REMEDY)
    (family,) = families
    eye, shape = config.eye, _shape(config.eye.vision)
    preset = read_preset({"llava": "llava-1.5", "blip-2": "blip2-opt"}.get(family, family)).eye
    assert isinstance(preset, EyeConfig) and isinstance(preset.vision, VitConfig)
    free = family == "llava"  # its configuration names a layer, and whether the class token is read
    if shape != _shape(preset.vision) or (eye.layer is None) == free or (not free and eye != _like(eye, preset)):
        raise UnsupportedModel(f"the {family} of transformers has no eye like {eye}", hint=_REMEDY)
    if isinstance(config.projector, PixelShuffleConfig) and (config.projector.bias or config.projector.mlp):
        raise UnsupportedModel(f"transformers has no projector like {config.projector}", hint=_REMEDY)
    return family


def _like(eye: EyeConfig, preset: EyeConfig) -> EyeConfig:
    return replace(eye, layer=preset.layer, class_token=preset.class_token)


def _shape(vision: VitConfig) -> tuple[Any, ...]:
    """What is not a matter of sizes."""
    kinds = (vision.class_token, vision.patch_bias, vision.pre_norm, vision.flexible)
    return (*kinds, vision.pooling == "class_token", vision.pooling == "attention", vision.projection_size)


def write_settings(config: VlmConfig, family: Family, text_config: Mapping[str, Any], image_id: int) -> dict[str, Any]:
    """A ``config.json`` that `transformers` reads.

    Args:
        config: The model.
        family: `family_of` it.
        text_config: The language model's.
        image_id: The token that stands for a picture's.
    """
    eye = config.eye
    assert isinstance(eye, EyeConfig) and isinstance(eye.vision, VitConfig)
    vision = {
        "model_type": _VISION_TYPES[family][0],
        **written_sizes(eye.vision),
        "image_size": eye.vision.image_size,
        "patch_size": eye.vision.patch_size,
    }
    content: dict[str, Any] = {
        "model_type": family,
        "architectures": [_ARCHITECTURES[family]],
        "vision_config": vision,
        "text_config": dict(text_config),
        "image_token_id" if family == "smolvlm" else "image_token_index": image_id,
    }
    match config.projector:
        case MlpConfig() as projector:
            content |= {
                "vision_feature_layer": eye.layer,
                "vision_feature_select_strategy": "full" if eye.class_token else "default",
                "projector_hidden_act": ACTIVATION_NAMES[projector.hidden_act],
                "multimodal_projector_bias": projector.bias,
                "image_seq_length": projector.num_tokens(eye.vision.grid_size**2 + eye.class_token),
                "tie_word_embeddings": bool(text_config.get("tie_word_embeddings")),
            }
        case PixelShuffleConfig() as projector:
            tied = bool(text_config.get("tie_word_embeddings"))
            content |= {"scale_factor": projector.factor, "tie_word_embeddings": tied}
        case QFormerConfig() as projector:
            content |= {"num_query_tokens": projector.num_queries, "qformer_config": _q_former(projector, eye)}
    return content


def _q_former(projector: QFormerConfig, eye: EyeConfig) -> dict[str, Any]:
    assert isinstance(eye.vision, VitConfig)
    return {
        **written_sizes(projector),
        "cross_attention_frequency": projector.cross_attention_frequency,
        "encoder_hidden_size": eye.vision.hidden_size,
        "max_position_embeddings": projector.max_position_embeddings,
        **({} if projector.vocab_size is None else {"vocab_size": projector.vocab_size}),
    }


def write_processor(config: VlmConfig, family: Family) -> dict[str, Any]:
    """A ``preprocessor_config.json`` that `transformers` reads."""
    assert isinstance(config.eye, EyeConfig)
    content = image_processor_config(config.eye.preprocessing)
    if family == "smolvlm":
        side = config.eye.preprocessing.image_size
        content |= {
            "image_processor_type": "SmolVLMImageProcessor",
            "size": {"longest_edge": side if config.tiles is None else config.tiles.max_side},
            "max_image_size": {"longest_edge": side},
            "do_image_splitting": config.tiles is not None,
            "do_pad": True,
            "do_convert_rgb": True,
        }
    elif "blip" in family and config.eye.preprocessing.resize == "squash":
        content["image_processor_type"] = "BlipImageProcessor"
    return content
