"""Tensor names of open_clip, which are also those of OpenAI's archives; and of the timm towers inside open_clip."""

from __future__ import annotations

from collections.abc import Iterable

from nunbit.clip import ClipConfig
from nunbit.pretrained.tensor_names import Rule, rename, rename_layer, reshape, transpose
from nunbit.vision_encoder import VitConfig

IGNORED = ("input_resolution", "context_length", "vocab_size")
"""Numbers that OpenAI's archives keep among the tensors."""


def open_clip_rules(config: ClipConfig, names: Iterable[str], *, text_prefix: str) -> list[Rule]:
    """Rules for a dual encoder that open_clip knows.

    Args:
        config: The dual encoder.
        names: Those of all our tensors: ResNets and timm backbones keep the names that they have there.
        text_prefix: ``"text."`` where the text encoder is a module of its own, else empty.
    """
    rules = [reshape("logit_scale", "logit_scale", (), ())]
    if config.objective == "sigmoid":
        rules.append(reshape("logit_bias", "logit_bias", (), ()))
    vision = config.vision
    if not isinstance(vision, VitConfig):
        ours = "vision_encoder."
        kept = [name for name in names if name.startswith(ours) and not name.endswith("num_batches_tracked")]
        rules += [rename(name, f"visual.{name.removeprefix(ours)}") for name in kept]
    elif vision.pooling == "attention":
        rules += _timm_vit_rules(vision)
    else:
        rules += _vision_rules(vision)
    return [*rules, *_text_rules(config, text_prefix)]


def _vision_rules(vision: VitConfig) -> list[Rule]:
    ours, theirs = "vision_encoder", "visual"
    rules = [
        rename(f"{ours}.class_token", f"{theirs}.class_embedding"),
        rename(f"{ours}.position_embedding", f"{theirs}.positional_embedding"),
        *rename_layer(f"{ours}.patch_embedding", f"{theirs}.conv1", bias=vision.patch_bias),
        *(rename_layer(f"{ours}.pre_norm", f"{theirs}.ln_pre") if vision.pre_norm else []),
        *_block_rules(ours, f"{theirs}.transformer", vision.num_hidden_layers),
        *rename_layer(f"{ours}.norm", f"{theirs}.ln_post"),
    ]
    return [*rules, transpose(f"{ours}.projection.weight", f"{theirs}.proj")]


def _text_rules(config: ClipConfig, prefix: str) -> list[Rule]:
    ours = "text_encoder"
    rules = [
        rename(f"{ours}.token_embedding.weight", f"{prefix}token_embedding.weight"),
        rename(f"{ours}.position_embedding", f"{prefix}positional_embedding"),
        *_block_rules(ours, f"{prefix}transformer", config.text.num_hidden_layers),
        *rename_layer(f"{ours}.norm", f"{prefix}ln_final"),
    ]
    if config.text.projection_bias:
        return [*rules, *rename_layer(f"{ours}.projection", f"{prefix}text_projection")]
    return [*rules, transpose(f"{ours}.projection.weight", f"{prefix}text_projection")]


def _block_rules(ours: str, theirs: str, count: int) -> list[Rule]:
    rules: list[Rule] = []
    for number in range(count):
        here, there = f"{ours}.blocks.{number}", f"{theirs}.resblocks.{number}"
        for kind in ("weight", "bias"):
            rules.append(rename(f"{here}.attention.qkv.{kind}", f"{there}.attn.in_proj_{kind}"))
        for name, other in (
            ("attention.out", "attn.out_proj"),
            ("norm1", "ln_1"),
            ("norm2", "ln_2"),
            ("mlp.fc1", "mlp.c_fc"),
            ("mlp.fc2", "mlp.c_proj"),
        ):
            rules += rename_layer(f"{here}.{name}", f"{there}.{other}")
    return rules


def _timm_vit_rules(vision: VitConfig) -> list[Rule]:
    """SigLIP's vision encoder, which open_clip takes from timm."""
    ours, theirs = "vision_encoder", "visual.trunk"
    rules = [
        Rule(
            (f"{ours}.position_embedding",),
            (f"{theirs}.pos_embed",),
            lambda tensors: [tensors[0][0]],
            lambda tensors: [tensors[0][None]],
        ),
        *rename_layer(f"{ours}.patch_embedding", f"{theirs}.patch_embed.proj"),
        *rename_layer(f"{ours}.norm", f"{theirs}.norm"),
    ]
    for number in range(vision.num_hidden_layers):
        here, there = f"{ours}.blocks.{number}", f"{theirs}.blocks.{number}"
        for name, other in (("attention.qkv", "attn.qkv"), ("attention.out", "attn.proj"), *_SAME):
            rules += rename_layer(f"{here}.{name}", f"{there}.{other}")
    rules.append(reshape(f"{ours}.pooling.probe", f"{theirs}.attn_pool.latent", (-1,), (1, 1, -1)))
    for name, other in (("query", "q"), ("key_value", "kv"), ("out", "proj"), ("norm", "norm"), *_SAME[2:]):
        rules += rename_layer(f"{ours}.pooling.{name}", f"{theirs}.attn_pool.{other}")
    return rules


_SAME = tuple((name, name) for name in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"))
