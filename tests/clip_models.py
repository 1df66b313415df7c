"""Small random models of each family, made by the reference libraries and saved as folders that users would have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from nunbit.clip import Clip, ClipConfig
from nunbit.preprocessing import Preprocessing
from nunbit.pretrained.encoder import ClipTowers
from nunbit.pretrained.parts import Settings
from nunbit.pretrained.tokenizer_files import read_clip_tokenizer
from nunbit.text_encoder import TextConfig
from nunbit.vision_encoder import VitConfig
from nunbit.vision_encoder.timm_backbone import import_timm

TEXTS = [
    "a photo of a cat",
    "",
    "창가에 앉은 고양이 한 마리",
    "🐈‍⬛ on a 🛋️!",
    "It's  NOT  a \t dog's, IS it?",
    "a very long caption about two dogs " * 30,
    "x",
]
CORPUS = [*TEXTS, "two dogs on a beach", "a red bus", "해변의 개 두 마리", "coffee and cake", "a man riding a wave"] * 8


import_timm()  # before open_clip and transformers ask for torchvision, whose compiled part may not fit here


def pictures(count: int, size: tuple[int, int] = (90, 60)) -> list[Image.Image]:
    """Noise over a gradient: pictures with detail at every scale."""
    rng = np.random.default_rng(count)
    ramp = np.linspace(0, 1, size[0])[None, :, None] * 128
    return [
        Image.fromarray((ramp + rng.integers(0, 128, (size[1], size[0], 3))).astype(np.uint8)) for _ in range(count)
    ]


def randomize(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Give every parameter and running statistic values that matter: fresh zeros and ones would hide mix-ups."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not tensor.is_floating_point() or tensor.ndim == 0:
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if "running_var" in name:
                tensor.copy_(1 + 0.1 * noise.abs())
            else:
                tensor.add_(noise * (0.5 * tensor.std() + 0.02 if tensor.numel() > 1 else 0.02))
    return model.eval()


def write_byte_pairs(folder: Path) -> int:
    """A tiny byte-pair vocabulary in CLIP's form; returns its size."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=sorted(alphabet), end_of_word_suffix="</w>")
    tokenizer.train_from_iterator((text.lower() for text in CORPUS), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merges = [pair if isinstance(pair, list) else pair.split(" ") for pair in model["merges"]]
    characters = sorted(alphabet)
    tokens = [*characters, *(c + "</w>" for c in characters), *("".join(pair) for pair in merges)]
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version\n" + "\n".join(" ".join(pair) for pair in merges))
    return len(tokens)


def write_sentencepiece(folder: Path) -> int:
    """A tiny SentencePiece model with T5's marks; returns its size."""
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_prefix=str(folder / "spiece"),
        vocab_size=180,
        hard_vocab_limit=False,
        pad_id=-1,
        bos_id=-1,
        eos_id=1,
        unk_id=2,
        control_symbols=["<pad>"],
        add_dummy_prefix=True,
        minloglevel=2,
    )
    (folder / "spiece.vocab").unlink()
    size: int = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model")).vocab_size()
    return size


def write_gemma(folder: Path) -> int:
    """A tiny tokenizer.json of Gemma's kind, bytes as a fallback; returns its size."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    marks = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=marks, initial_alphabet=[])
    tokenizer.train_from_iterator((text.lower() for text in CORPUS), trainer)
    content = json.loads(tokenizer.to_str())
    vocabulary = content["model"]["vocab"]
    vocabulary |= {byte: len(vocabulary) + number for number, byte in enumerate(bytes_)}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return len(vocabulary)


def write_sentencepiece_json(folder: Path) -> int:
    """A tiny tokenizer.json of T5's kind, as open_clip's SigLIP folders have it; returns its size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>")
    tokenizer.train_from_iterator((text.lower() for text in CORPUS), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    content = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "pad_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(content))
    return int(tokenizer.get_vocab_size())


def write_xlm_json(folder: Path) -> int:
    """A tiny tokenizer.json of XLM-RoBERTa's kind, with a mark on each side of a text; returns its size."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    marks = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer.train_from_iterator(
        CORPUS, trainers.UnigramTrainer(vocab_size=300, special_tokens=marks, unk_token="<unk>")
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    content = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(content))
    return int(tokenizer.get_vocab_size())


def make_towers(folder: Path, **changes: Any) -> ClipTowers:
    """A tiny random CLIP of our own, with a vocabulary in ``folder``; ``changes`` are of its vision encoder."""
    size = write_byte_pairs(folder)
    blocks = {"num_hidden_layers": 2, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
    vision = {
        "image_size": 32, "patch_size": 8, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64,
        "class_token": True, "patch_bias": False, "pre_norm": True, "pooling": "class_token", "projection_size": 24,
    }  # fmt: skip
    text = TextConfig(
        **blocks, vocab_size=size, max_position_embeddings=24, hidden_size=32, num_attention_heads=2,
        intermediate_size=64, causal=True, pooling="end_token", end_token_id=size - 1, projection_size=24,
        projection_bias=False,
    )  # fmt: skip
    config = ClipConfig(vision=VitConfig(**(blocks | vision | changes)), text=text, objective="softmax")
    torch.manual_seed(0)
    model = Clip(config)
    randomize(model)
    preprocessing = Preprocessing(32, 1.0, (0.48, 0.45, 0.4), (0.26, 0.26, 0.27), "crop", "bicubic")
    settings = Settings(config, preprocessing, read_clip_tokenizer(folder, config, "transformers"))
    return ClipTowers(model, settings, license="Apache-2.0", name="tiny")
