"""Tiny vision-language models with a tokenizer of bytes."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from nunbit.vlm.assembly import build, read_preset
from nunbit.vlm.conversation import PICTURE, Turn
from nunbit.vlm.model import VisionLanguageModel
from tiny_language import SPECIAL


def make_tokenizer() -> Any:
    """Every byte is a token of its own, after the marks."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<pad>", "<s>", "</s>", *SPECIAL, *letters])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=SPECIAL,
    )


def make_vlm(preset: str, seed: int = 0) -> VisionLanguageModel:
    """A tiny preset whose random weights are large enough that every picture and word moves the answer."""
    torch.manual_seed(seed)
    model = build(read_preset(preset, tiny=True), make_tokenizer()).eval().requires_grad_(False)
    for name, value in model.named_parameters():
        if value.ndim > 1 and not name.startswith("eye."):
            value.mul_(6)
    return model


def picture(seed: int = 0, size: tuple[int, int] = (70, 50)) -> Image.Image:
    noise = torch.randint(256, (size[1], size[0], 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(noise.to(torch.uint8).numpy())


def question(words: str, pictures: int = 1) -> list[Turn]:
    return [Turn("user", (*[PICTURE] * pictures, words))]
