"""Model folders of open_clip: ``open_clip_config.json`` and safetensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nunbit.clip import ClipConfig
from nunbit.errors import UnsupportedModel
from nunbit.layers import Activation
from nunbit.preprocessing import Preprocessing
from nunbit.pretrained.image_processor import preprocess_cfg, read_preprocess_cfg
from nunbit.pretrained.parts import Settings, read_json, square, with_end_token
from nunbit.pretrained.tokenizer_files import read_open_clip_tokenizer
from nunbit.text import Tokenizer
from nunbit.text.clip_bpe import ClipVocabulary
from nunbit.text_encoder import TextConfig
from nunbit.vision_encoder import ResNetConfig, TimmConfig, VisionConfig, VitConfig

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors")
_CLEANING = {"repair_lower": "lower", "repair": "whitespace", "repair_words": "canonicalize"}

# Settings that change the architecture in ways that are not known here, with the value that leaves it alone.
_PLAIN_VISION = {
    "ls_init_value": None,
    "attentional_pool": False,
    "pos_embed_type": "learnable",
    "final_ln_after_pool": False,
    "block_type": None,
    "qk_norm": False,
    "scaled_cosine_attn": False,
    "scale_heads": False,
    "scale_attn_inner": False,
    "scale_attn": False,
    "scale_fc": False,
}
_PLAIN_TEXT = {
    "ls_init_value": None,
    "embed_cls": False,
    "hf_model_name": None,
    "proj_type": "linear",
    "tokenizer_mode": None,
    "final_ln_after_pool": False,
    **{name: _PLAIN_VISION[name] for name in ("block_type", "qk_norm", "scaled_cosine_attn", "scale_heads")},
    **{name: _PLAIN_VISION[name] for name in ("scale_attn_inner", "scale_attn", "scale_fc")},
}

# Settings that are read here, and those that only matter in training.
_VISION_KEYS = {
    "layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size", "patch_dropout", "attn_pooler_queries",
    "attn_pooler_heads", "no_ln_pre", "pool_type", "output_tokens", "act_kwargs", "norm_kwargs", "timm_model_name",
    "timm_model_pretrained", "timm_pool", "timm_proj", "timm_proj_bias", "timm_drop", "timm_drop_path",
}  # fmt: skip
_TEXT_KEYS = {
    "context_length", "vocab_size", "hf_tokenizer_name", "tokenizer_kwargs", "width", "heads", "layers", "mlp_ratio",
    "pad_id", "eos_id", "no_causal_mask", "pool_type", "proj_bias", "output_tokens", "act_kwargs", "norm_kwargs",
    "hf_model_pretrained", "hf_proj_type", "hf_pooler_type",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Siglip:
    """Sizes of a SigLIP tower under timm's name for it."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int


_SIGLIP = {
    "base": _Siglip(768, 12, 12, 3072),
    "large": _Siglip(1024, 24, 16, 4096),
    "so400m": _Siglip(1152, 27, 16, 4304),
    "giantopt": _Siglip(1536, 40, 16, 6144),
}
# The models were trained with tanh's approximation throughout; timm gives it to these towers, exact GELU to the others.
_SIGLIP_TANH = re.compile(
    r"vit_(base_patch32_siglip_256|large_patch16_siglip_512|so400m_patch16_siglip_\d+|giantopt_patch16_siglip_\d+)"
)
_SIGLIP_NAME = re.compile(r"vit_(base|large|so400m|giantopt)_patch(\d+)_siglip_(\d+)")


def read_settings(folder: Path) -> Settings:
    """Read everything but the weights.

    Raises:
        UnsupportedModel: Something in the folder is missing or not known here.
    """
    content = read_json(folder / CONFIG)
    cfg = content.get("model_cfg", content)
    config = open_clip_config(cfg)
    preprocessing = read_preprocess_cfg(content.get("preprocess_cfg") or {}, config.vision.image_size)
    tokenizer = read_open_clip_tokenizer(folder, config, cfg["text_cfg"])
    highest = cfg["text_cfg"].get("pool_type", "argmax") == "argmax"
    return Settings(with_end_token(config, tokenizer, highest=highest), preprocessing, tokenizer)


def open_clip_config(cfg: Mapping[str, Any]) -> ClipConfig:
    """A dual encoder from open_clip's ``model_cfg``.

    Raises:
        UnsupportedModel: It has parts that are not known here; all of them are listed.
    """
    vision, text = cfg["vision_cfg"], cfg["text_cfg"]
    odd = [f"vision_cfg.{name}" for name in vision if name not in _VISION_KEYS | _PLAIN_VISION.keys()]
    odd += [f"text_cfg.{name}" for name in text if name not in _TEXT_KEYS | _PLAIN_TEXT.keys()]
    odd += [f"vision_cfg.{name}" for name, plain in _PLAIN_VISION.items() if vision.get(name, plain) != plain]
    odd += [f"text_cfg.{name}" for name, plain in _PLAIN_TEXT.items() if text.get(name, plain) != plain]
    odd += [f"text_cfg.tokenizer_kwargs.{name}" for name in text.get("tokenizer_kwargs") or {} if name != "clean"]
    if "multimodal_cfg" in cfg:
        odd.append("multimodal_cfg")
    if odd:
        raise UnsupportedModel(f"this open_clip model has parts that are not known here: {', '.join(odd)}")
    act: Activation = "quick_gelu" if cfg.get("quick_gelu") else "gelu"
    size = int(cfg["embed_dim"])
    return ClipConfig(
        vision=_vision(vision, act, size),
        text=_text(text, act, size),
        objective="softmax" if cfg.get("init_logit_bias") is None else "sigmoid",
    )


def _vision(cfg: Mapping[str, Any], act: Activation, size: int) -> VisionConfig:
    side = square(cfg.get("image_size", 224), "image_size")
    if cfg.get("timm_model_name"):
        return _timm(cfg, side, size)
    width, head_width = int(cfg.get("width", 768)), int(cfg.get("head_width", 64))
    layers = cfg.get("layers", 12)
    if isinstance(layers, list):
        first, second, third, fourth = layers
        return ResNetConfig(
            image_size=side,
            layers=(first, second, third, fourth),
            width=width,
            num_attention_heads=width * 32 // head_width,
            projection_size=size,
        )
    pool = cfg.get("pool_type", "tok")
    if pool not in ("tok", "avg"):
        raise UnsupportedModel(f"open_clip's vision pool_type {pool!r}; known: tok, avg")
    return VitConfig(
        image_size=side,
        patch_size=square(cfg.get("patch_size", 16), "patch_size"),
        hidden_size=width,
        num_hidden_layers=int(layers),
        num_attention_heads=width // head_width,
        intermediate_size=int(width * float(cfg.get("mlp_ratio", 4.0))),
        hidden_act=_tanh(cfg, act),
        layer_norm_eps=float((cfg.get("norm_kwargs") or {}).get("eps", 1e-5)),
        class_token=True,
        patch_bias=False,
        pre_norm=not cfg.get("no_ln_pre", False),
        pooling="class_token" if pool == "tok" else "mean",
        projection_size=size,
        position_interpolation="bicubic_antialias",
    )


def _timm(cfg: Mapping[str, Any], side: int, size: int) -> VisionConfig:
    name, pool, projection = str(cfg["timm_model_name"]), cfg.get("timm_pool", "avg"), cfg.get("timm_proj", "linear")
    siglip = _SIGLIP_NAME.fullmatch(name)
    if siglip and (pool, projection) == ("map", "none"):
        sizes = _SIGLIP[siglip[1]]
        return VitConfig(
            image_size=side,
            patch_size=int(siglip[2]),
            hidden_size=sizes.hidden_size,
            num_hidden_layers=sizes.num_hidden_layers,
            num_attention_heads=sizes.num_attention_heads,
            intermediate_size=sizes.intermediate_size,
            hidden_act="gelu_tanh" if _SIGLIP_TANH.fullmatch(name) else "gelu",
            layer_norm_eps=1e-6,
            class_token=False,
            patch_bias=True,
            pre_norm=False,
            pooling="attention",
            projection_size=None,
            position_interpolation="bicubic_antialias",
        )
    if pool in ("abs_attn", "rot_attn"):
        raise UnsupportedModel(f"open_clip's timm_pool {pool!r} is not known here")
    return TimmConfig(
        model_name=name,
        image_size=side,
        pool=pool or "",
        projection=projection or "trunk",
        projection_bias=bool(cfg.get("timm_proj_bias", False)),
        projection_size=size,
    )


def _text(cfg: Mapping[str, Any], act: Activation, size: int) -> TextConfig:
    pool, vocabulary, width = (
        cfg.get("pool_type", "argmax"),
        int(cfg.get("vocab_size", 49408)),
        int(cfg.get("width", 512)),
    )
    if pool not in ("argmax", "last", "eos"):
        raise UnsupportedModel(f"open_clip's text pool_type {pool!r}; known: argmax, last, eos")
    return TextConfig(
        vocab_size=vocabulary,
        max_position_embeddings=int(cfg.get("context_length", 77)),
        hidden_size=width,
        num_hidden_layers=int(cfg.get("layers", 12)),
        num_attention_heads=int(cfg.get("heads", 8)),
        intermediate_size=int(width * float(cfg.get("mlp_ratio", 4.0))),
        hidden_act=_tanh(cfg, act),
        layer_norm_eps=float((cfg.get("norm_kwargs") or {}).get("eps", 1e-5)),
        causal=not cfg.get("no_causal_mask", False),
        pooling="last" if pool == "last" else "end_token",
        # "argmax" takes the highest id of a text, which CLIP's end token is.
        end_token_id={"argmax": vocabulary - 1, "eos": int(cfg.get("eos_id", 2)), "last": 1}[pool],
        projection_size=size,
        projection_bias=bool(cfg.get("proj_bias", False)),
    )


def _tanh(cfg: Mapping[str, Any], act: Activation) -> Activation:
    return "gelu_tanh" if (cfg.get("act_kwargs") or {}).get("approximate") == "tanh" else act


def custom_text(config: ClipConfig) -> bool:
    """Tell whether open_clip keeps the text encoder in a module of its own."""
    return config.objective == "sigmoid" or config.vision.kind == "timm" or not config.text.causal


def write_config(config: ClipConfig, preprocessing: Preprocessing, tokenizer: Tokenizer) -> dict[str, Any] | None:
    """What open_clip reads, for ``open_clip_config.json``; None where it has no such architecture."""
    vision, text = _vision_cfg(config.vision), config.text
    act = config.vision.hidden_act if isinstance(config.vision, VitConfig) else text.hidden_act
    if vision is None or (config.vision.kind == "vit" and config.objective == "softmax" and act != text.hidden_act):
        return None
    text_cfg: dict[str, Any] = {
        "context_length": text.max_position_embeddings,
        "vocab_size": text.vocab_size,
        "width": text.hidden_size,
        "heads": text.num_attention_heads,
        "layers": text.num_hidden_layers,
        "mlp_ratio": _ratio(text.intermediate_size, text.hidden_size),
        "no_causal_mask": not text.causal,
        "proj_bias": text.projection_bias,
        "pool_type": "last" if text.pooling == "last" else "eos",
        "eos_id": text.end_token_id,
        "norm_kwargs": {"eps": text.layer_norm_eps},
    }
    if text.hidden_act == "gelu_tanh":
        text_cfg["act_kwargs"] = {"approximate": "tanh"}
    settings, vocabulary = tokenizer.config, tokenizer.vocabulary
    cleaning = _CLEANING.get(settings.canonicalization)
    if not (isinstance(vocabulary, ClipVocabulary) and vocabulary.openais):
        text_cfg["hf_tokenizer_name"] = "."  # open_clip looks into the folder itself; "." is only not nothing
        cleaning = cleaning or "whitespace"
    if cleaning is not None:
        text_cfg["tokenizer_kwargs"] = {"clean": cleaning}
    model = {"embed_dim": config.embedding_size, "vision_cfg": vision, "text_cfg": text_cfg}
    if text.hidden_act == "quick_gelu":
        model["quick_gelu"] = True
    if config.objective == "sigmoid":
        model["init_logit_bias"] = -10
    if custom_text(config):
        model["custom_text"] = True
    return {"model_cfg": model, "preprocess_cfg": preprocess_cfg(preprocessing)}


def _vision_cfg(vision: VisionConfig) -> dict[str, Any] | None:
    if isinstance(vision, TimmConfig):
        return {
            "image_size": vision.image_size,
            "timm_model_name": vision.model_name,
            "timm_model_pretrained": False,
            "timm_pool": vision.pool,
            "timm_proj": "" if vision.projection == "trunk" else vision.projection,
            "timm_proj_bias": vision.projection_bias,
        }
    if isinstance(vision, ResNetConfig):
        cfg = {"image_size": vision.image_size, "layers": list(vision.layers), "width": vision.width}
        return cfg | {"head_width": vision.width * 32 // vision.num_attention_heads, "patch_size": None}
    if vision.pooling == "attention":
        return _siglip_cfg(vision)
    if not vision.class_token or vision.patch_bias or vision.projection_size is None or vision.flexible:
        return None
    cfg = {"image_size": vision.image_size, "patch_size": vision.patch_size, "layers": vision.num_hidden_layers}
    cfg |= {"width": vision.hidden_size, "head_width": vision.hidden_size // vision.num_attention_heads}
    cfg |= {"mlp_ratio": _ratio(vision.intermediate_size, vision.hidden_size), "no_ln_pre": not vision.pre_norm}
    cfg |= {"pool_type": "tok" if vision.pooling == "class_token" else "avg"}
    cfg |= {"norm_kwargs": {"eps": vision.layer_norm_eps}}
    return cfg | ({"act_kwargs": {"approximate": "tanh"}} if vision.hidden_act == "gelu_tanh" else {})


def _ratio(inner: int, width: int) -> float:
    """A ratio that open_clip, which cuts decimals off, turns back into the very width."""
    return inner / width if int(width * (inner / width)) == inner else (inner + 0.5) / width


def _siglip_cfg(vision: VitConfig) -> dict[str, Any] | None:
    """Timm's name for a SigLIP tower, where it has one with this very activation."""
    for size, sizes in _SIGLIP.items():
        same = all(getattr(vision, field) == getattr(sizes, field) for field in _Siglip.__slots__)
        name = f"vit_{size}_patch{vision.patch_size}_siglip_{vision.image_size}"
        act = "gelu_tanh" if _SIGLIP_TANH.fullmatch(name) else "gelu"
        if same and act == vision.hidden_act and not vision.flexible:
            return {"image_size": vision.image_size, "timm_model_name": name, "timm_pool": "map", "timm_proj": "none"}
    return None
