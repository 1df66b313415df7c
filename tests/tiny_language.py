"""A tiny Llama with a tokenizer of bytes, as a folder of `transformers` and as a GGUF file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from nunbit.language_model import LanguageModel, make_language_model

LLAMA = {
    "model_type": "llama",
    "vocab_size": 265,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0},
}
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "1 2"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokens() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return [*SPECIAL, *sorted(ByteLevel.alphabet()), *("".join(merge.split()) for merge in MERGES)]


def make_llama(seed: int = 0, **changes: Any) -> LanguageModel:
    torch.manual_seed(seed)
    return make_language_model(LLAMA | changes).eval()


def permute(rows: np.ndarray, num_heads: int) -> np.ndarray:
    """The order that GGUF keeps the rows of queries and keys in: of every pair first one, then the other."""
    halves = rows.reshape(num_heads, 2, -1, rows.shape[1])
    return np.stack([halves[:, 0], halves[:, 1]], axis=2).reshape(rows.shape)


def write_gguf(path: Path, model: LanguageModel, **changes: Any) -> Path:
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    numbers = {
        "vocab_size": LLAMA["vocab_size"],
        "embedding_length": LLAMA["hidden_size"],
        "feed_forward_length": LLAMA["intermediate_size"],
        "block_count": LLAMA["num_hidden_layers"],
        "attention.head_count": LLAMA["num_attention_heads"],
        "attention.head_count_kv": LLAMA["num_key_value_heads"],
        "context_length": LLAMA["max_position_embeddings"],
    }
    for name, number in numbers.items():
        writer.add_uint32(f"llama.{name}", number)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", LLAMA["rms_norm_eps"])
    writer.add_float32("llama.rope.freq_base", 5000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(changes.get("pre", "smollm"))
    writer.add_token_list(tokens())
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(tokens()) - len(SPECIAL)))
    writer.add_token_merges(MERGES)
    for name, number in (("bos", 1), ("eos", 2), ("unknown", 0), ("padding", 2)):
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", number)
    writer.add_chat_template(TEMPLATE)
    if changes.get("stretched"):
        writer.add_rope_scaling_factor(2.0)
    for name, values in _tensors(model).items():
        if name != changes.get("without"):
            writer.add_tensor(name, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


_PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def _tensors(model: LanguageModel) -> dict[str, np.ndarray]:
    state = {name: tensor.numpy() for name, tensor in model.model.state_dict().items()}
    out = {"token_embd.weight": state["model.embed_tokens.weight"], "output_norm.weight": state["model.norm.weight"]}
    if not model.model.config.tie_word_embeddings:
        out["output.weight"] = state["lm_head.weight"]
    for number in range(LLAMA["num_hidden_layers"]):
        for theirs, ours in _PARTS.items():
            values = state[f"model.layers.{number}.{theirs}.weight"]
            heads = {"attn_q": LLAMA["num_attention_heads"], "attn_k": LLAMA["num_key_value_heads"]}.get(ours)
            out[f"blk.{number}.{ours}.weight"] = permute(values, heads) if heads else values
    return out
