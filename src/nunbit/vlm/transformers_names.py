"""Tensor names of `transformers`: whole vision-language models.

In between stand the names that rules know, whatever a file calls them: ``vision_model`` for the eye, those of
`nunbit.pretrained.projector_names` for the projector, ``language_model`` in front of those of a language model by
itself. Versions of `transformers` differ in what stands in front; all of these are read, and the oldest is written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

from torch import Tensor

from nunbit.pretrained.projector_names import projector_rules
from nunbit.pretrained.tensor_names import Rule, rename_layer, reshape
from nunbit.pretrained.transformers_names import IGNORED, vision_rules
from nunbit.vision_encoder import VitConfig
from nunbit.vlm.config import EyeConfig, VlmConfig

Family: TypeAlias = Literal["llava", "blip-2", "instructblip", "smolvlm"]

COUNTERS = (*IGNORED, "qformer.embeddings.position_ids")
"""Tensors of older files that hold no weights."""

LANGUAGE_MODEL = "language_model."
_READ = (
    (r"(model\.)?vision_tower\.(vision_model\.)?", "vision_model."),
    (r"model\.(text_model|language_model)\.", "language_model.model."),
    (r"lm_head\.", "language_model.lm_head."),
    (r"model\.(?=vision_model\.|multi_modal_projector\.|connector\.)", ""),
)
_WRITTEN: dict[Family, Sequence[tuple[str, str]]] = {
    "llava": ((r"vision_model\.", "vision_tower.vision_model."),),
    "smolvlm": (
        (r"(?=vision_model\.|connector\.)", "model."),
        (r"language_model\.model\.", "model.text_model."),
        (r"language_model\.lm_head\.", "lm_head."),
    ),
    "blip-2": (),
    "instructblip": (),
}


def known_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A file's tensors by the names that rules know."""
    return {_renamed(name, _READ): tensor for name, tensor in tensors.items()}


def written_names(tensors: Mapping[str, Tensor], family: Family) -> dict[str, Tensor]:
    """Tensors by the names that rules know → by those that files of a family have."""
    return {_renamed(name, _WRITTEN[family]): tensor for name, tensor in tensors.items()}


def vlm_rules(config: VlmConfig, family: Family) -> list[Rule]:
    """Rules for eye and projector; a language model has its own names.

    Raises:
        UnsupportedModel: `transformers` has no such projector.
    """
    assert isinstance(config.eye, EyeConfig) and isinstance(config.eye.vision, VitConfig)
    ours = "eye.encoder"
    eye = _blip_rules(config.eye.vision, ours) if "blip" in family else vision_rules(config.eye.vision, ours)
    below = [
        replace(rule, ours=tuple(f"projector.{name}" for name in rule.ours))
        for rule in projector_rules(config.projector)
    ]
    return [*eye, *below]


def _blip_rules(vision: VitConfig, ours: str) -> list[Rule]:
    """The eye of BLIP-2 and InstructBLIP, whose queries, keys and values stand in one matrix as ours do."""
    theirs = "vision_model"
    tokens = vision.grid_size**2 + vision.class_token
    positions, class_token = f"{theirs}.embeddings.position_embedding", f"{theirs}.embeddings.class_embedding"
    rules = [
        reshape(f"{ours}.position_embedding", positions, (tokens, -1), (1, tokens, -1)),
        reshape(f"{ours}.class_token", class_token, (-1,), (1, 1, -1)),
        *rename_layer(f"{ours}.patch_embedding", f"{theirs}.embeddings.patch_embedding"),
        *rename_layer(f"{ours}.norm", f"{theirs}.post_layernorm"),
    ]
    for number in range(vision.num_hidden_layers):
        here, there = f"{ours}.blocks.{number}", f"{theirs}.encoder.layers.{number}"
        for name, other in (
            ("attention.qkv", "self_attn.qkv"),
            ("attention.out", "self_attn.projection"),
            ("norm1", "layer_norm1"),
            ("norm2", "layer_norm2"),
            ("mlp.fc1", "mlp.fc1"),
            ("mlp.fc2", "mlp.fc2"),
        ):
            rules += rename_layer(f"{here}.{name}", f"{there}.{other}")
    return rules


def _renamed(name: str, changes: Sequence[tuple[str, str]]) -> str:
    for pattern, instead in changes:
        if found := re.match(pattern, name):
            return instead + name[found.end() :]
    return name
