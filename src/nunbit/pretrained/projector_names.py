"""Tensor names of `transformers`: the projectors of LLaVA, SmolVLM, BLIP-2 and InstructBLIP.

The names are those of the composed model's module (``model.multi_modal_projector`` and so on), without the ``model.``
that newer files put in front.
"""

from __future__ import annotations

from nunbit.errors import UnsupportedModel
from nunbit.pretrained.tensor_names import Rule, fuse, rename, rename_layer, reshape
from nunbit.projector import MlpConfig, PixelShuffleConfig, ProjectorConfig, QFormerConfig


def projector_rules(config: ProjectorConfig) -> list[Rule]:
    """Rules for a projector that `transformers` knows.

    Raises:
        UnsupportedModel: It knows none of this kind.
    """
    match config:
        case MlpConfig():
            pairs = (("fc1", "linear_1"), ("fc2", "linear_2"))
            return [
                rule
                for ours, theirs in pairs
                for rule in rename_layer(ours, f"multi_modal_projector.{theirs}", bias=config.bias)
            ]
        case PixelShuffleConfig(mlp=False):
            return rename_layer("projection.projection", "connector.modality_projection.proj", bias=config.bias)
        case QFormerConfig():
            return _q_former_rules(config)
        case _:
            raise UnsupportedModel(f"transformers has no projector like {config}")


def _q_former_rules(config: QFormerConfig) -> list[Rule]:
    rules = [
        reshape("queries", "query_tokens", (config.num_queries, -1), (1, config.num_queries, -1)),
        *rename_layer("projection", "language_projection"),
    ]
    if config.vocab_size is None:  # BLIP-2; with an instruction, InstructBLIP
        rules += rename_layer("norm", "qformer.layernorm")
    else:
        embeddings = "qformer.embeddings"
        rules += rename_layer("norm", f"{embeddings}.layernorm")
        rules.append(rename("token_embedding.weight", f"{embeddings}.word_embeddings.weight"))
        rules.append(rename("position_embedding", f"{embeddings}.position_embeddings.weight"))
    for number in range(config.num_hidden_layers):
        rules += _layer_rules(config, number)
    return rules


def _layer_rules(config: QFormerConfig, number: int) -> list[Rule]:
    ours, theirs = f"layers.{number}", f"qformer.encoder.layer.{number}"
    names = [
        ("attention.out", "attention.output.dense"),
        ("attention_norm", "attention.output.LayerNorm"),
        ("mlp.fc1", "intermediate_query.dense"),
        ("mlp.fc2", "output_query.dense"),
        ("mlp_norm", "output_query.LayerNorm"),
    ]
    if number % config.cross_attention_frequency == 0:
        names += [(f"cross_attention.{part}", f"crossattention.attention.{part}") for part in ("query", "key", "value")]
        names += [
            ("cross_attention.out", "crossattention.output.dense"),
            ("cross_norm", "crossattention.output.LayerNorm"),
        ]
    if config.vocab_size is not None:
        names += [
            ("text_mlp.fc1", "intermediate.dense"),
            ("text_mlp.fc2", "output.dense"),
            ("text_norm", "output.LayerNorm"),
        ]
    rules = [rule for ours_, theirs_ in names for rule in rename_layer(f"{ours}.{ours_}", f"{theirs}.{theirs_}")]
    for kind in ("weight", "bias"):
        apart = [f"{theirs}.attention.attention.{which}.{kind}" for which in ("query", "key", "value")]
        rules.append(fuse(f"{ours}.attention.qkv.{kind}", apart))
    return rules
