"""Every preset in small, with a tokenizer of bytes, and a few samples."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image

from nunbit.vlm.assembly import build, read_preset
from nunbit.vlm.batching import Sample, SampleReader, collate
from nunbit.vlm.conversation import PICTURE, Turn
from nunbit.vlm.model import VisionLanguageModel, VlmInputs
from tiny_language import SPECIAL

BEGIN, END = 1, 2


def byte_tokenizer() -> Any:
    """A token a byte, and the marks of chats."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from tokenizers.pre_tokenizers import ByteLevel

    vocabulary = ["<pad>", "<s>", "</s>", *SPECIAL, *sorted(ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(vocabulary)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    marks = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "additional_special_tokens": SPECIAL}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **marks)


def make_vlm(name: str, seed: int = 0) -> VisionLanguageModel:
    """A preset in small, with random weights."""
    torch.manual_seed(seed)
    return build(read_preset(name, tiny=True), byte_tokenizer()).eval()


@cache
def shared_vlm(name: str) -> VisionLanguageModel:
    """The same for tests that change nothing."""
    return make_vlm(name).requires_grad_(False)


def noise(seed: int = 0, width: int = 70, height: int = 50) -> Image.Image:
    """A picture like no other."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def conversations() -> list[tuple[list[Turn], list[Image.Image]]]:
    """One picture, two with two answers, and none."""
    return [
        ([Turn("user", (PICTURE, "What is it?")), Turn("assistant", ("a red thing",))], [noise(1)]),
        (
            [
                Turn("user", ("First: ", PICTURE, PICTURE, "The same?")),
                Turn("assistant", ("no",)),
                Turn("user", ("And now",)),
                Turn("assistant", ("still not",)),
            ],
            [noise(2), noise(3, 20, 44)],
        ),
        ([Turn("user", ("Hello",)), Turn("assistant", ("Hi",))], []),
    ]


def samples(model: VisionLanguageModel) -> list[Sample]:
    reader = SampleReader(model)
    return [reader.read(turns, images) for turns, images in conversations()]


def together(model: VisionLanguageModel, some: list[Sample], **options: Any) -> VlmInputs:
    return collate(some, encoder_decoder=model.language_model.is_encoder_decoder, **options)


def make_lively_vlm(preset: str, seed: int = 0) -> VisionLanguageModel:
    """Random weights large enough that every picture and word moves the answer."""
    model = make_vlm(preset, seed).requires_grad_(False)
    for name, value in model.named_parameters():
        if value.ndim > 1 and not name.startswith("eye."):
            value.mul_(6)
    return model


def picture(seed: int = 0, size: tuple[int, int] = (70, 50)) -> Image.Image:
    noise = torch.randint(256, (size[1], size[0], 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(noise.to(torch.uint8).numpy())


def question(words: str, pictures: int = 1) -> list[Turn]:
    return [Turn("user", (*[PICTURE] * pictures, words))]
