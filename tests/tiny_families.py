"""Tiny random models of families that `transformers` knows, as folders: weights, processor, tokenizer of bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from nunbit.language_model.transformers_model import import_transformers

TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] }}]{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}IMAGE{% else %}{{ c['text'] }}{% endif %}{% endfor %}\n{% endfor %}[assistant]"
)
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}
CLIP = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}
ROPE = {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}}
VISION_MARKS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")


def make_tokenizer(marks: Sequence[str] = (), **named: str) -> Any:
    """Every byte is a token, after the marks; those with a name are attributes as well (``image_token``)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    first = ["<pad>", "<s>", "</s>", *marks, *named.values()]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate([*first, *letters])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    transformers = import_transformers()
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens=named,
        clean_up_tokenization_spaces=False,
    )
    wrapped.add_special_tokens({"additional_special_tokens": list(marks)}, replace_extra_special_tokens=False)
    return wrapped


def write(folder: Path, config: Any, processor: Any, scale: float = 20) -> None:
    """A random model of a configuration, with a processor; its weights large, so that what is shown moves answers."""
    torch.manual_seed(0)
    t = import_transformers()
    listed = type(config) in t.AutoModelForImageTextToText._model_mapping
    model = (t.AutoModelForImageTextToText if listed else t.AutoModelForMultimodalLM).from_config(config)
    for name, value in model.named_parameters():
        if value.ndim == 2:
            value.data.mul_(scale)
            if not value.any():
                value.data.normal_()
        if name.endswith("attn_gate"):
            value.data.fill_(1)  # closed in a new model
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def qwen(config: str, processor: str, vision: dict[str, Any], **more: Any) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        t = import_transformers()
        tokenizer = make_tokenizer(VISION_MARKS)
        ids = tokenizer.convert_tokens_to_ids
        size = {"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 4}
        write(
            folder,
            getattr(t, config)(
                text_config=TEXT | ROPE | {"vocab_size": len(tokenizer)} | more,
                vision_config={"depth": 2, "num_heads": 2, "patch_size": 14, **vision},
                image_token_id=ids("<|image_pad|>"),
                video_token_id=ids("<|video_pad|>"),
                vision_start_token_id=ids("<|vision_start|>"),
                vision_end_token_id=ids("<|vision_end|>"),
            ),
            getattr(t, processor)(
                t.Qwen2VLImageProcessor(size=size, patch_size=14, merge_size=2),
                tokenizer,
                t.Qwen2VLVideoProcessor(size=size, patch_size=14, merge_size=2),
                chat_template=TEMPLATE.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>"),
            ),
        )

    return build


def llava(folder: Path) -> None:
    t = import_transformers()
    tokenizer = make_tokenizer(image_token="<image>")
    write(
        folder,
        t.LlavaConfig(
            vision_config=t.CLIPVisionConfig(**CLIP),
            text_config=t.LlamaConfig(**TEXT, vocab_size=len(tokenizer)),
            image_token_index=tokenizer.image_token_id,
        ),
        t.LlavaProcessor(
            t.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
            tokenizer,
            patch_size=14,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
            chat_template=TEMPLATE.replace("IMAGE", "<image>"),
        ),
    )


def internvl(folder: Path) -> None:
    t = import_transformers()
    tokenizer = make_tokenizer(
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    write(
        folder,
        t.InternVLConfig(
            vision_config=t.InternVLVisionConfig(**CLIP | {"image_size": [28, 28], "patch_size": [14, 14]}),
            text_config=t.Qwen2Config(**TEXT, vocab_size=len(tokenizer)),
            image_token_id=tokenizer.context_image_token_id,
        ),
        t.InternVLProcessor(
            t.GotOcr2ImageProcessor(size={"height": 28, "width": 28}, crop_to_patches=True, max_patches=2),
            tokenizer,
            t.InternVLVideoProcessor(size={"height": 28, "width": 28}),
            image_seq_length=1,
            chat_template=TEMPLATE.replace("IMAGE", "<IMG_CONTEXT>\n"),
        ),
    )


def mllama(folder: Path) -> None:
    t = import_transformers()
    tokenizer = make_tokenizer(["<|image|>", "<|python_tag|>"])
    write(
        folder,
        t.MllamaConfig(
            vision_config={
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_global_layers": 1,
                "attention_heads": 4,
                "vision_output_dim": 64,
                "image_size": 28,
                "patch_size": 14,
                "intermediate_layers_indices": [1],
                "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]],
                "max_num_tiles": 2,
            },
            text_config=TEXT
            | {
                "num_hidden_layers": 4,
                "cross_attention_layers": [1, 3],
                "vocab_size": len(tokenizer),
                "pad_token_id": 0,
            },
            image_token_index=tokenizer.convert_tokens_to_ids("<|image|>"),
        ),
        t.MllamaProcessor(
            t.MllamaImageProcessor(size={"height": 28, "width": 28}, max_image_tiles=2),
            tokenizer,
            chat_template=TEMPLATE.replace("IMAGE", "<|image|>"),
        ),
    )


def idefics3(folder: Path) -> None:
    t = import_transformers()
    marks = ["<fake_token_around_image>", "<global-img>", "<end_of_utterance>", "<image>"]
    tokenizer = make_tokenizer([*marks, *(f"<row_{r}_col_{c}>" for r in range(1, 5) for c in range(1, 5))])
    write(
        folder,
        t.Idefics3Config(
            vision_config=CLIP,
            text_config=t.LlamaConfig(**TEXT, vocab_size=len(tokenizer) + 8),
            scale_factor=2,
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        ),
        t.Idefics3Processor(
            t.Idefics3ImageProcessor(size={"longest_edge": 56}, max_image_size={"longest_edge": 28}),
            tokenizer,
            image_seq_len=1,
            chat_template=TEMPLATE.replace("IMAGE", "<image>"),
        ),
    )


def blip2(folder: Path) -> None:
    t = import_transformers()
    tokenizer = make_tokenizer(["<image>"])
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    write(
        folder,
        t.Blip2Config(
            vision_config=CLIP,
            qformer_config=sizes | {"encoder_hidden_size": 32},
            text_config=t.OPTConfig(
                vocab_size=len(tokenizer), hidden_size=32, word_embed_proj_dim=32, ffn_dim=48,
                num_hidden_layers=2, num_attention_heads=4, bos_token_id=1, eos_token_id=2, pad_token_id=0,
            ),
            num_query_tokens=4,
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        ),
        t.Blip2Processor(t.BlipImageProcessor(size={"height": 28, "width": 28}), tokenizer, num_query_tokens=4),
    )  # fmt: skip


def phi4(folder: Path) -> None:
    t = import_transformers()
    tokenizer = make_tokenizer(image_token="<|image|>", audio_token="<|audio|>")
    write(
        folder,
        t.Phi4MultimodalConfig(
            **TEXT,
            vocab_size=len(tokenizer),
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
            original_max_position_embeddings=2048,
            vision_config=CLIP | {"image_size": 448, "crop_size": 448, "image_token_id": tokenizer.image_token_id},
            audio_config={
                "hidden_size": 16, "intermediate_size": 16, "num_blocks": 1, "num_attention_heads": 2,
                "ext_pw_out_channel": 16, "depthwise_separable_out_channel": 16, "nemo_conv_channels": 16,
                "audio_token_id": tokenizer.audio_token_id,
            },
        ),
        t.Phi4MultimodalProcessor(
            t.Phi4MultimodalImageProcessor(dynamic_hd=1),
            t.Phi4MultimodalFeatureExtractor(),
            tokenizer,
            chat_template=TEMPLATE.replace("IMAGE", "<|image|>"),
        ),
    )  # fmt: skip


def gemma3(folder: Path) -> None:
    t = import_transformers()
    tokenizer = make_tokenizer(
        image_token="<image_soft_token>", boi_token="<start_of_image>", eoi_token="<end_of_image>"
    )
    write(
        folder,
        t.Gemma3Config(
            vision_config=t.SiglipVisionConfig(**CLIP),
            text_config=TEXT
            | {"vocab_size": len(tokenizer), "head_dim": 8, "sliding_window": 16, "num_hidden_layers": 6},
            mm_tokens_per_image=1,
            boi_token_index=tokenizer.boi_token_id,
            eoi_token_index=tokenizer.eoi_token_id,
            image_token_index=tokenizer.image_token_id,
        ),
        t.Gemma3Processor(
            t.Gemma3ImageProcessor(size={"height": 28, "width": 28}),
            tokenizer,
            image_seq_length=1,
            chat_template=TEMPLATE.replace("IMAGE", "<start_of_image>"),
        ),
        scale=1,
    )


GRANITE = {"attention_multiplier": 0.35, "embedding_multiplier": 1.0, "logits_scaling": 1.0, "residual_multiplier": 1.0}
QWEN2 = {"embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2}
QWEN25 = {
    "hidden_size": 32,
    "out_hidden_size": 32,
    "intermediate_size": 48,
    "window_size": 56,
    "fullatt_block_indexes": [1],
}

FAMILIES: dict[str, Callable[[Path], None]] = {
    "qwen2-vl": qwen("Qwen2VLConfig", "Qwen2VLProcessor", QWEN2),
    "qwen2.5-vl": qwen("Qwen2_5_VLConfig", "Qwen2_5_VLProcessor", QWEN25),
    "internvl": internvl,
    "mllama": mllama,
    "llava": llava,
    "idefics3": idefics3,
    "blip-2": blip2,
    "phi4-multimodal": phi4,
    "gemma3": gemma3,
    "hyperclovax-vision": qwen(
        "HyperCLOVAXVisionV2Config", "HyperCLOVAXVisionV2Processor", QWEN25, rope_parameters=None, **GRANITE
    ),
}
