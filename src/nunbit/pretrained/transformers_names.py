"""Tensor names of `transformers`: CLIP, SigLIP, SigLIP 2 (NaFlex) and ViT."""

from __future__ import annotations

import torch
from torch import Tensor

from nunbit.clip import ClipConfig
from nunbit.pretrained.tensor_names import Rule, fuse, part, rename, rename_layer, reshape
from nunbit.vision_encoder import VitConfig

IGNORED = ("vision_model.embeddings.position_ids", "text_model.embeddings.position_ids")
"""Counters that older versions wrote."""


def clip_rules(config: ClipConfig) -> list[Rule]:
    """Rules for a dual encoder that `transformers` knows."""
    vision = config.vision
    assert isinstance(vision, VitConfig)
    rules = [rename("logit_scale", "logit_scale")]
    if config.objective == "sigmoid":
        rules = [reshape(name, name, (), (1,)) for name in ("logit_scale", "logit_bias")]
    return [*rules, *vision_rules(vision), *_text_rules(config)]


def vision_rules(vision: VitConfig, ours: str = "vision_encoder", theirs: str = "vision_model") -> list[Rule]:
    """Rules for the vision encoder of CLIP, SigLIP or SigLIP 2, below these names."""
    rules = [rename(f"{ours}.position_embedding", f"{theirs}.embeddings.position_embedding.weight")]
    patches = (f"{ours}.patch_embedding.weight", f"{theirs}.embeddings.patch_embedding.weight")
    rules.append(_patch_rule(*patches, vision.patch_size) if vision.flexible else rename(*patches))
    if vision.patch_bias:
        rules.append(rename(f"{ours}.patch_embedding.bias", f"{theirs}.embeddings.patch_embedding.bias"))
    if vision.class_token:
        rules.append(rename(f"{ours}.class_token", f"{theirs}.embeddings.class_embedding"))
    if vision.pre_norm:
        rules += rename_layer(f"{ours}.pre_norm", f"{theirs}.pre_layrnorm")
    rules += _block_rules(ours, theirs, vision.num_hidden_layers)
    rules += rename_layer(f"{ours}.norm", f"{theirs}.post_layernorm")
    if vision.pooling == "attention":
        rules += _pooling_rules(f"{ours}.pooling", f"{theirs}.head")
    if vision.projection_size is not None:
        rules.append(rename(f"{ours}.projection.weight", "visual_projection.weight"))
    return rules


def _text_rules(config: ClipConfig) -> list[Rule]:
    ours, theirs = "text_encoder", "text_model"
    projection = f"{theirs}.head" if config.text.projection_bias else "text_projection"
    return [
        rename(f"{ours}.token_embedding.weight", f"{theirs}.embeddings.token_embedding.weight"),
        rename(f"{ours}.position_embedding", f"{theirs}.embeddings.position_embedding.weight"),
        *_block_rules(ours, theirs, config.text.num_hidden_layers),
        *rename_layer(f"{ours}.norm", f"{theirs}.final_layer_norm"),
        *rename_layer(f"{ours}.projection", projection, bias=config.text.projection_bias),
    ]


def _block_rules(ours: str, theirs: str, count: int) -> list[Rule]:
    rules: list[Rule] = []
    for number in range(count):
        here, there = f"{ours}.blocks.{number}", f"{theirs}.encoder.layers.{number}"
        for kind in ("weight", "bias"):
            apart = [f"{there}.self_attn.{which}_proj.{kind}" for which in "qkv"]
            rules.append(fuse(f"{here}.attention.qkv.{kind}", apart))
        rules += rename_layer(f"{here}.attention.out", f"{there}.self_attn.out_proj")
        for name, other in (("norm1", "layer_norm1"), ("norm2", "layer_norm2"), *_MLP):
            rules += rename_layer(f"{here}.{name}", f"{there}.{other}")
    return rules


_MLP = (("mlp.fc1", "mlp.fc1"), ("mlp.fc2", "mlp.fc2"))


def _pooling_rules(ours: str, theirs: str) -> list[Rule]:
    rules = [reshape(f"{ours}.probe", f"{theirs}.probe", (-1,), (1, 1, -1))]
    for kind in ("weight", "bias"):
        here = (f"{ours}.query.{kind}", f"{ours}.key_value.{kind}")
        rules.append(part(here, f"{theirs}.attention.in_proj_{kind}"))
    for name, other in (("out", "attention.out_proj"), ("norm", "layernorm"), *_MLP):
        rules += rename_layer(f"{ours}.{name}", f"{theirs}.{other}")
    return rules


def _patch_rule(ours: str, theirs: str, patch_size: int) -> Rule:
    """NaFlex keeps a matrix over (row, column, channel) of a patch; here it is a convolution (channel, row, column)."""

    def load(tensors: list[Tensor]) -> list[Tensor]:
        return [torch.unflatten(tensors[0], 1, (patch_size, patch_size, -1)).permute(0, 3, 1, 2)]

    return Rule((ours,), (theirs,), load, lambda tensors: [tensors[0].permute(0, 2, 3, 1).flatten(1)])


def vit_rules(config: VitConfig, *, classifier: bool) -> list[Rule]:
    """Rules for ``ViTForImageClassification``, as published files name their tensors."""
    ours, theirs = "vision_encoder", "vit"
    rules = [
        reshape(f"{ours}.class_token", f"{theirs}.embeddings.cls_token", (-1,), (1, 1, -1)),
        Rule(
            (f"{ours}.position_embedding",),
            (f"{theirs}.embeddings.position_embeddings",),
            lambda tensors: [tensors[0][0]],
            lambda tensors: [tensors[0][None]],
        ),
        *rename_layer(f"{ours}.patch_embedding", f"{theirs}.embeddings.patch_embeddings.projection"),
        *rename_layer(f"{ours}.norm", f"{theirs}.layernorm"),
    ]
    for number in range(config.num_hidden_layers):
        here, there = f"{ours}.blocks.{number}", f"{theirs}.encoder.layer.{number}"
        for kind in ("weight", "bias"):
            apart = [f"{there}.attention.attention.{which}.{kind}" for which in ("query", "key", "value")]
            rules.append(fuse(f"{here}.attention.qkv.{kind}", apart))
        for name, other in (
            ("attention.out", "attention.output.dense"),
            ("norm1", "layernorm_before"),
            ("norm2", "layernorm_after"),
            ("mlp.fc1", "intermediate.dense"),
            ("mlp.fc2", "output.dense"),
        ):
            rules += rename_layer(f"{here}.{name}", f"{there}.{other}")
    return [*rules, *(rename_layer("head.out", "classifier") if classifier else [])]
