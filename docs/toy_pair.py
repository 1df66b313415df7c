"""A toy contrastive pair, trained in minutes on drawings that are made here; docs/models.md shows it at work.

The drawings hold one or two colored things on a light, textured ground; their captions are English or Korean. Five of
the thirty colored shapes are never shown in training. `train` uses the model's own parts: CLIP's architecture made
small, its byte-pair encoding learned from the captions, the softmax contrastive loss, AdamW.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import combinations, permutations
from pathlib import Path
from typing import Any, TypeAlias

import click
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw
from torch import Tensor

import nunbit
from nunbit.clip import Clip
from nunbit.losses import softmax_contrastive
from nunbit.presets import architecture
from nunbit.pretrained.encoder import ClipTowers, build_model
from nunbit.pretrained.image_processor import read_preprocess_cfg
from nunbit.pretrained.parts import Settings
from nunbit.pretrained.reading import read_pretrained
from nunbit.text import Tokenizer, TokenizerConfig
from nunbit.text.clip_bpe import BEGIN, END, BytePairs, make_vocabulary, read_byte_pairs

Thing: TypeAlias = tuple[str, str]  # color, shape
Rng: TypeAlias = np.random.Generator

SIDE, PATCH, TOKENS = 64, 8, 16
PAIRS_PER_BATCH = 15
DRAWN = 500
"""About so many new drawings are asked about for each figure."""
COLORS = {
    "red": (205, 40, 40),
    "blue": (40, 80, 200),
    "green": (40, 150, 60),
    "yellow": (232, 190, 20),
    "purple": (130, 50, 160),
    "orange": (240, 120, 20),
}
SHAPES = ("circle", "square", "triangle", "star", "cross")
KOREAN_WORDS = ("빨간", "파란", "초록", "노란", "보라", "주황", "원", "사각형", "삼각형", "별", "십자가")
KOREAN = dict(zip((*COLORS, *SHAPES), KOREAN_WORDS, strict=True))
THINGS = [(color, shape) for color in COLORS for shape in SHAPES]
NEVER = [("red", "cross"), ("blue", "triangle"), ("green", "star"), ("yellow", "circle"), ("purple", "square")]
SHOWN = [thing for thing in THINGS if thing not in NEVER]


def outline(shape: str) -> npt.NDArray[np.float64]:
    """The corners (N, 2) of a shape of radius about 1 around the origin."""
    if shape == "square":
        return np.array([(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)])
    if shape == "cross":
        a = 0.34
        arm = [(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a)]
        return np.array([*arm, *((-x, -y) for x, y in arm)])
    corners, radii = {"circle": (40, [1.0]), "triangle": (3, [1.1]), "star": (10, [1.1, 0.45])}[shape]
    angle = np.arange(corners) * 2 * np.pi / corners - np.pi / 2
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.resize(radii, corners)[:, None]


def draw(things: Sequence[Thing], rng: Rng) -> Image.Image:
    """One or two things at random places, in random sizes, a little turned, on a random light ground."""
    coarse = Image.fromarray(rng.integers(0, 255, (9, 9, 3), dtype=np.uint8)).resize((SIDE, SIDE))
    ground = rng.uniform(205, 250, 3) + 0.1 * (np.asarray(coarse, float) - 128) + rng.normal(0, 3, (SIDE, SIDE, 1))
    canvas = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8)).resize((2 * SIDE, 2 * SIDE))
    pen = ImageDraw.Draw(canvas)
    while True:
        radii = rng.uniform(11, 20 if len(things) == 1 else 15, len(things))
        centers = rng.uniform(radii[:, None] + 1, SIDE - radii[:, None] - 1, (len(things), 2))
        if len(things) == 1 or np.hypot(*(centers[0] - centers[1])) > 1.1 * radii.sum():
            break
    for (color, shape), radius, center in zip(things, radii, centers, strict=True):
        angle = rng.uniform(-0.2, 0.2)
        turn = np.array([(math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))])
        corners = 2 * (radius * outline(shape) @ turn + center)
        red, green, blue = (int(value) for value in np.clip(COLORS[color] + rng.normal(0, 10, 3), 0, 255))
        pen.polygon([(x, y) for x, y in corners], fill=(red, green, blue))
    return canvas.resize((SIDE, SIDE), Image.Resampling.BOX)


def english(things: Sequence[Thing]) -> str:
    """``a red circle``, ``a blue star and an orange square``."""
    return " and ".join(f"{'an' if color == 'orange' else 'a'} {color} {shape}" for color, shape in things)


def korean(things: Sequence[Thing]) -> str:
    """``빨간 원``, ``파란 별과 주황 사각형``."""
    names = [f"{KOREAN[color]} {KOREAN[shape]}" for color, shape in things]
    return ("와 " if things[0][1] == "cross" else "과 ").join(names)


def learn_byte_pairs(captions: Sequence[str]) -> BytePairs:
    """A vocabulary in CLIP's form: all bytes, all bytes at a word's end, merges, two marks."""
    from tokenizers import Tokenizer as Learner
    from tokenizers import models, pre_tokenizers, trainers

    learner = Learner(models.BPE(end_of_word_suffix="</w>"))
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    learner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), as_bytes])
    units = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(initial_alphabet=units, end_of_word_suffix="</w>", show_progress=False)
    learner.train_from_iterator(captions, trainer)
    merges = [(first, second) for first, second in json.loads(learner.to_str())["model"]["merges"]]
    tokens = dict.fromkeys([*units, *(unit + "</w>" for unit in units), *map("".join, merges), BEGIN, END])
    return BytePairs({token: number for number, token in enumerate(tokens)}, merges)


def make_settings() -> Settings:
    """CLIP's architecture and preprocessing in miniature, with a vocabulary made of the captions."""
    contents = [[thing] for thing in THINGS] + [list(two) for two in permutations(THINGS, 2)]
    pairs = learn_byte_pairs([caption(things) for things in contents for caption in (english, korean)])
    end = pairs.vocabulary[END]
    clip = architecture("ViT-B-32-quickgelu")
    sizes: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 4, "projection_size": 64}
    text_sizes = sizes | {"hidden_size": 64, "intermediate_size": 256, "max_position_embeddings": TOKENS}
    vision_sizes = sizes | {"hidden_size": 96, "intermediate_size": 384, "image_size": SIDE, "patch_size": PATCH}
    config = replace(
        clip,
        vision=replace(clip.vision, **vision_sizes),
        text=replace(clip.text, **text_sizes, vocab_size=len(pairs.vocabulary), end_token_id=end),
    )
    tokenizer = TokenizerConfig(
        kind="clip_bpe",
        canonicalization="nfc_lower",
        context_length=TOKENS,
        begin_token_id=pairs.vocabulary[BEGIN],
        end_token_id=end,
        pad_token_id=end,
        padding="longest",
    )
    vocabulary = make_vocabulary(pairs, "transformers")
    return Settings(config, read_preprocess_cfg({}, SIDE), Tokenizer(vocabulary, tokenizer))


def make_batch(settings: Settings, rng: Rng) -> tuple[Tensor, Tensor]:
    """Pixels and token ids: every shown thing once and some pairs, so that no two captions mean the same."""
    pairs = list(combinations(SHOWN, 2))
    chosen = [[thing] for thing in SHOWN] + [list(pairs[i]) for i in rng.choice(len(pairs), PAIRS_PER_BATCH, False)]
    for things in chosen:
        rng.shuffle(things)
    captions = [(english, korean)[rng.integers(2)]([(c, s) for c, s in things]) for things in chosen]
    pixels = np.stack([settings.preprocessing(draw(things, rng)) for things in chosen])
    return torch.from_numpy(pixels), torch.from_numpy(settings.tokenizer(captions))


def train(model: Clip, settings: Settings, steps: int) -> list[float]:
    """Train from scratch; the same seed gives the same weights on the same machine. Returns the losses."""
    rng = np.random.default_rng(0)
    groups: list[dict[str, Any]] = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=2e-3, betas=(0.9, 0.98))

    def rise_and_fall(step: int) -> float:
        return min(1, (step + 1) / 40) * 0.5 * (1 + math.cos(math.pi * step / steps))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rise_and_fall)
    losses = []
    with ThreadPoolExecutor(1) as artist:  # draws the next batch meanwhile, in the same order
        upcoming = artist.submit(make_batch, settings, rng)
        for step in range(steps):
            pixel_values, input_ids = upcoming.result()
            upcoming = artist.submit(make_batch, settings, rng)
            output = model(pixel_values, input_ids)
            loss = softmax_contrastive(output.image_embeddings, output.text_embeddings, model.logit_scale.exp())
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            losses.append(loss.item())
            if step % 100 == 0:
                click.echo(f"step {step}: loss {loss.item():.2f}", err=True)
    return losses


def measure(encoder: nunbit.Encoder, losses: Sequence[float]) -> list[str]:
    """Zero-shot accuracy on drawings that were not trained on, as lines."""
    rng = np.random.default_rng(1)
    size = len(SHOWN) + PAIRS_PER_BATCH
    fall = f"{losses[0]:.2f} -> {np.mean(losses[-50:]):.2f}"
    lines = [
        f"{len(losses)} steps of {size} drawings: loss {fall} (ln {size} = {math.log(size):.2f})",
        f"logit scale {1 / 0.07:.1f} -> {encoder.logit_scale:.1f}",
        "one thing, top-1 %              of  English  Korean",
    ]
    for group, things in (("shown", SHOWN), ("never shown", NEVER)):
        truths = np.array([THINGS.index(thing) for thing in things for _ in range(DRAWN // len(things))])
        images = encoder.encode_image([draw([THINGS[truth]], rng) for truth in truths], batch_size=50)
        scores = [_right(encoder, images, truths, caption) for caption in (english, korean)]
        for number, (what, count) in enumerate((("color and shape", 30), ("shape", 5), ("color", 6))):
            cells = "".join(f"{score[number]:>8.1f}" for score in scores)
            lines.append(f"{f'{group}: {what}':<31}{count:>3} {cells}")
    lines.append(f"two things, right caption above the one with colors exchanged: {_binding(encoder, rng):.1f} %")
    return lines


def _right(encoder: nunbit.Encoder, images: npt.NDArray[Any], truths: npt.NDArray[Any], caption: Any) -> list[float]:
    """Percent right among the things, the shapes and the colors; a shape is the mean of its captions in all colors."""
    texts = encoder.encode_text([caption([thing]) for thing in THINGS])
    table = texts.reshape(len(COLORS), len(SHAPES), -1)
    shapes, colors = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (table.mean(0), table.mean(1)))
    asked = ((texts, truths), (shapes, truths % len(SHAPES)), (colors, truths // len(SHAPES)))
    return [100 * float(((images @ labels.T).argmax(1) == truth).mean()) for labels, truth in asked]


def _binding(encoder: nunbit.Encoder, rng: Rng) -> float:
    """How often a drawing of two things is nearer to its caption than to the one with the colors exchanged."""
    swaps = []
    for (color, shape), (other, form) in combinations(SHOWN, 2):
        if color != other and shape != form and (other, shape) in SHOWN and (color, form) in SHOWN:
            swaps.append(([(color, shape), (other, form)], [(other, shape), (color, form)]))
    images = encoder.encode_image([draw(things, rng) for things, _ in swaps], batch_size=50)
    right = encoder.encode_text([english(things) for things, _ in swaps])
    wrong = encoder.encode_text([english(swapped) for _, swapped in swaps])
    return 100 * float(np.mean((images * right).sum(1) > (images * wrong).sum(1)))


def spoil(folder: Path) -> list[str]:
    """Top-1 accuracy on the things that were shown, with one choice at a time made wrong, as lines."""
    pretrained = read_pretrained(folder)
    right = pretrained.settings
    config, preprocessing, tokenizer = right.config, right.preprocessing, right.tokenizer
    half = (0.5, 0.5, 0.5)
    gelu = {"hidden_act": "gelu"}
    no_case = Tokenizer(make_vocabulary(read_byte_pairs(folder), "open_clip"), tokenizer.config)
    padded = Tokenizer(tokenizer.vocabulary, replace(tokenizer.config, padding="max_length"))
    on_the_left = Tokenizer(tokenizer.vocabulary, replace(padded.config, padding_side="left"))
    last = replace(config, text=replace(config.text, pooling="last"))
    activation = replace(config, vision=replace(config.vision, **gelu), text=replace(config.text, **gelu))
    wrong = {
        "nothing wrong": right,
        "gelu for quick_gelu": replace(right, config=activation),
        "mean and std of 0.5 for CLIP's": replace(right, preprocessing=replace(preprocessing, mean=half, std=half)),
        "blue first, red last": right,
        "Captions In Title Case": right,
        "the same, not made lower case": replace(right, tokenizer=no_case),
        "texts padded to 16 tokens": replace(right, tokenizer=padded),
        "the same, read at the last token": replace(right, config=last, tokenizer=padded),
        "the same, padded on the left": replace(right, tokenizer=on_the_left),
    }
    rng = np.random.default_rng(2)
    truths = np.array([THINGS.index(thing) for thing in SHOWN for _ in range(DRAWN // len(SHOWN))])
    pictures = [draw([THINGS[truth]], rng) for truth in truths]
    lines = ["one choice made wrong             top-1 % of 30  cosine with right: pictures  texts"]
    answers = []
    for name, settings in wrong.items():
        captions = [english([thing]) for thing in THINGS]
        captions = [text.title() for text in captions] if "Case" in name or "lower" in name else captions
        seen = [Image.merge("RGB", picture.split()[::-1]) for picture in pictures] if "blue" in name else pictures
        towers = ClipTowers(build_model(replace(pretrained, settings=settings)), settings, license="", name=name)
        images = towers.encode_pixels(np.stack([settings.preprocessing(picture) for picture in seen]))
        texts = towers.encode_texts(captions)
        answers.append((images, texts))
        hits = (images @ texts.T).argmax(1) == truths
        moved = [(now * before).sum(1).mean() for now, before in zip(answers[-1], answers[0], strict=True)]
        lines.append(f"{name:<33}{100 * hits.mean():>14.1f}{moved[0]:>29.3f}{moved[1]:>7.3f}")
    return lines
