"""Language models of the Llama architecture from GGUF files: SmolLM2 and its like, dequantized.

The format keeps the rows of queries and keys in another order than `transformers` does. Rotary embeddings turn pairs
of a head's numbers: here the pair is (i, i + S / 2), there it is (2 i, 2 i + 1). Read without reordering the rows, a
model still answers, badly: SmolLM2's loss on a few plain sentences rises from 2.36 to 3.30.

Shapes: H heads, S width of a head, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nunbit.errors import UnsupportedModel, WeightsError
from nunbit.language_model.gguf_tokenizer import read_tokenizer
from nunbit.language_model.model import LanguageModel
from nunbit.language_model.transformers_model import Precision, import_transformers, load_model, make_config

_WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_IN_BLOCKS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_norm": "input_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_norm": "post_attention_layernorm",
}
_SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "max_position_embeddings": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
}


def read_gguf(path: Path, precision: Precision) -> LanguageModel:
    """Read a GGUF file: configuration, weights and tokenizer.

    Args:
        path: The file.
        precision: What the model computes in; quantized weights are dequantized.

    Raises:
        UnsupportedModel: Another architecture or tokenizer, or the package ``gguf`` is not installed.
        WeightsError: The file is damaged, or its tensors do not fit its configuration.
    """
    transformers = import_transformers()
    metadata, stored = _open(path)
    settings = read_settings(metadata, path)
    state = read_state(stored, settings, path)
    settings["tie_word_embeddings"] = "lm_head.weight" not in state
    tokenizer = read_tokenizer(metadata, path)
    config = make_config(settings | {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id})
    model = load_model(transformers.LlamaForCausalLM, None, precision, where=str(path), config=config, state_dict=state)
    return LanguageModel(model, tokenizer)


def _open(path: Path) -> tuple[dict[str, Any], list[Any]]:
    """The file's key-value pairs and its tensors, which are read from the disk when they are asked for."""
    try:
        import gguf
    except ImportError as error:
        raise UnsupportedModel(f"{path.name} needs the package gguf", hint="pip install 'nunbit[vlm]'") from error
    try:
        reader = gguf.GGUFReader(path)
        return {name: field.contents() for name, field in reader.fields.items()}, reader.tensors
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise WeightsError(f"{path} is no whole GGUF file: {error}", hint="copy it again") from error


def read_settings(metadata: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """What a ``config.json`` of `transformers` would hold."""
    architecture = metadata.get("general.architecture")
    if architecture != "llama":
        raise UnsupportedModel(f"{path.name} has the architecture {architecture!r}; only 'llama' is known here")
    if stretched := [name for name in metadata if name.startswith("llama.rope.scaling.")]:
        raise UnsupportedModel(f"{path.name} stretches its positions ({stretched[0]}), which is not known here")
    try:
        settings = {ours: metadata[f"llama.{theirs}"] for ours, theirs in _SIZES.items()}
        theta = metadata["llama.rope.freq_base"]
    except KeyError as error:
        raise UnsupportedModel(f"{path.name} does not say {error.args[0]}") from error
    return {
        "model_type": "llama",
        **settings,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
    }


def read_state(stored: Iterable[Any], settings: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """All tensors, float32, by the names and in the arrangement of `transformers`."""
    import gguf

    heads = {"attn_q": settings["num_attention_heads"], "attn_k": settings["num_key_value_heads"]}
    state: dict[str, Tensor] = {}
    for tensor in stored:
        try:
            values = gguf.dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError as error:
            raise UnsupportedModel(f"{path.name} is quantized as {tensor.tensor_type.name}; {error}") from error
        kind = tensor.name.split(".")[-2]
        if kind in heads:
            values = unpermute(values, heads[kind])
        state[_their_name(tensor.name)] = torch.from_numpy(np.array(values, dtype=np.float32))
    return state


def unpermute(rows: NDArray[np.float32], num_heads: int) -> NDArray[np.float32]:
    """Rows of queries or keys in GGUF's order → in that of `transformers`: (H S, D) → (H S, D)."""
    pairs = rows.reshape(num_heads, -1, 2, *rows.shape[1:])  # (H, S / 2, 2, D)
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def _their_name(name: str) -> str:
    """The name in `transformers`; as it is where there is none, which is then told of as unexpected."""
    *block, kind, last = name.split(".")
    if not block:
        return f"{_WHOLE.get(kind, kind)}.{last}"
    return f"model.layers.{block[-1]}.{_IN_BLOCKS.get(kind, kind)}.{last}"
