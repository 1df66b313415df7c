"""Draws the figures of docs/models.md, from a toy contrastive pair that it trains first.

Usage: python docs/draw_models.py [--steps 1800] [--into docs/figures] [--model build/shapes]

The pair learns from drawings made here: one or two colored shapes on a light, textured ground, with captions in English
or Korean. Five of the thirty colored shapes are never shown to it. It is saved as a model folder and opened again by
`nunbit.load`, so that the figures show what any model of that form would do.

What is measured is printed, and written into every figure ("Description"), where a test compares it with the page.

Shapes: B batch, H heads, P patches.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from itertools import combinations, permutations
from pathlib import Path
from typing import Any, TypeAlias

import click
import matplotlib
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from torch import Tensor

import nunbit
from nunbit.clip import Clip, ClipConfig
from nunbit.losses import softmax_contrastive
from nunbit.preprocessing import Preprocessing
from nunbit.pretrained.encoder import ClipTowers
from nunbit.pretrained.image_processor import CLIP_MEAN, CLIP_STD
from nunbit.pretrained.parts import Settings
from nunbit.text import Tokenizer, TokenizerConfig
from nunbit.text.clip_bpe import BEGIN, END, BytePairs, make_vocabulary
from nunbit.text_encoder import TextConfig
from nunbit.vision_encoder import VitConfig

Thing: TypeAlias = tuple[str, str]  # color, shape
Rng: TypeAlias = np.random.Generator
Rows: TypeAlias = npt.NDArray[np.float32]

ROOT = Path(__file__).resolve().parents[1]
SIDE, PATCH, TOKENS = 64, 8, 16
PAIRS_PER_BATCH = 15
COLORS = {
    "red": (205, 40, 40),
    "blue": (40, 80, 200),
    "green": (40, 150, 60),
    "yellow": (232, 190, 20),
    "purple": (130, 50, 160),
    "orange": (240, 120, 20),
}
SHAPES = ("circle", "square", "triangle", "star", "cross")
KOREAN = dict(
    zip(
        (*COLORS, *SHAPES),
        ("빨간", "파란", "초록", "노란", "보라", "주황", "원", "사각형", "삼각형", "별", "십자가"),
        strict=True,
    )
)
THINGS = [(color, shape) for color in COLORS for shape in SHAPES]
NEVER = [("red", "cross"), ("blue", "triangle"), ("green", "star"), ("yellow", "circle"), ("purple", "square")]
SHOWN = [thing for thing in THINGS if thing not in NEVER]
EIGHT: list[list[Thing]] = [
    [("red", "circle")],
    [("red", "square")],
    [("blue", "square")],
    [("blue", "star")],
    [("green", "triangle")],
    [("yellow", "cross")],
    [("blue", "star"), ("red", "square")],
    [("red", "star"), ("blue", "square")],
]
STYLE = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "text.color": "#222222",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
}


# Drawings and captions


def outline(shape: str) -> npt.NDArray[np.float64]:
    """The corners (N, 2) of a shape of radius about 1 around the origin."""
    if shape == "square":
        return np.array([(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)])
    if shape == "cross":
        a = 0.34
        arm = np.array([(-a, -1), (a, -1), (a, -a)])
        turns = [np.array([(0, -1), (1, 0)]), -np.eye(2), np.array([(0, 1), (-1, 0)])]
        return np.concatenate([arm, *(arm @ turn.T for turn in turns)])
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


# The pair


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
    common: dict[str, Any] = {
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        "projection_size": 64,
    }
    vision = VitConfig(
        **common,
        hidden_size=96,
        intermediate_size=384,
        image_size=SIDE,
        patch_size=PATCH,
        class_token=True,
        patch_bias=False,
        pre_norm=True,
        pooling="class_token",
    )
    text = TextConfig(
        **common,
        hidden_size=64,
        intermediate_size=256,
        vocab_size=len(pairs.vocabulary),
        max_position_embeddings=TOKENS,
        causal=True,
        pooling="end_token",
        end_token_id=end,
        projection_bias=False,
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
    return Settings(
        ClipConfig(vision=vision, text=text, objective="softmax"),
        Preprocessing(SIDE, 1.0, CLIP_MEAN, CLIP_STD, "crop", "bicubic"),
        Tokenizer(make_vocabulary(pairs, "transformers"), tokenizer),
    )


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
    rise_and_fall = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / 40) * 0.5 * (1 + math.cos(math.pi * step / steps))
    )
    losses = []
    for step in range(steps):
        pixel_values, input_ids = make_batch(settings, rng)
        output = model(pixel_values, input_ids)
        loss = softmax_contrastive(output.image_embeddings, output.text_embeddings, model.logit_scale.exp())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rise_and_fall.step()
        losses.append(loss.item())
        if step % 100 == 0:
            click.echo(f"step {step}: loss {loss.item():.2f}", err=True)
    return losses


# What it can do


def measure(encoder: nunbit.Encoder, losses: Sequence[float]) -> list[str]:
    """Zero-shot accuracy on drawings that were not trained on, as lines."""
    rng = np.random.default_rng(1)
    size = len(SHOWN) + PAIRS_PER_BATCH
    first, last = losses[0], float(np.mean(losses[-50:]))
    lines = [
        f"{len(losses)} steps of {size} drawings: loss {first:.2f} -> {last:.2f} (ln {size} = {math.log(size):.2f})",
        f"logit scale {1 / 0.07:.1f} -> {encoder.logit_scale:.1f}",
        "one thing, top-1 %              of  English  Korean",
    ]
    for group, things in (("shown", SHOWN), ("never shown", NEVER)):
        truths = np.array([THINGS.index(thing) for thing in things for _ in range(500 // len(things))])
        images = encoder.encode_image([draw([THINGS[truth]], rng) for truth in truths], batch_size=50)
        scores = [_right(encoder, images, truths, caption) for caption in (english, korean)]
        for number, (what, count) in enumerate((("color and shape", 30), ("shape", 5), ("color", 6))):
            cells = "".join(f"{score[number]:>8.1f}" for score in scores)
            lines.append(f"{f'{group}: {what}':<31}{count:>3} {cells}")
    lines.append(f"two things, right caption above the one with colors exchanged: {_binding(encoder, rng):.1f} %")
    return lines


def _right(encoder: nunbit.Encoder, images: Rows, truths: npt.NDArray[Any], caption: Any) -> list[float]:
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


# Figures


def draw_patches(encoder: nunbit.Encoder) -> Figure:
    """The picture, its patches, and which positions the model holds to be alike."""
    picture = np.asarray(draw([("blue", "star"), ("red", "square")], np.random.default_rng(5)))
    figure = Figure(figsize=(8, 2.9), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    left.imshow(picture, interpolation="nearest")
    left.set(title="(3, 64, 64): pixels", xticks=[0, 63], yticks=[0, 63])
    gap, count = 2, SIDE // PATCH
    step = PATCH + gap
    spread = np.full((count * step - gap, count * step - gap, 3), 255, np.uint8)
    for row in range(count):
        for column in range(count):
            patch = picture[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH]
            spread[row * step : row * step + PATCH, column * step : column * step + PATCH] = patch
    middle.imshow(spread, interpolation="nearest")
    middle.set(title="64 patches, each of 3 x 8 x 8 numbers", xticks=[], yticks=[])
    positions = torch.nn.functional.normalize(encoder.model.vision_encoder.position_embedding[1:], dim=-1)
    chosen = [(1, 1), (1, 6), (4, 3), (6, 5)]
    maps = [(positions @ positions[row * count + column]).reshape(count, count) for row, column in chosen]
    tiles = np.full((2 * count + 1, 2 * count + 1), np.nan)
    for number, (tile, (row, column)) in enumerate(zip(maps, chosen, strict=True)):
        top, start = (count + 1) * (number // 2), (count + 1) * (number % 2)
        tiles[top : top + count, start : start + count] = tile.numpy()
        right.plot(start + column, top + row, "o", color="#222222", markersize=3)
    shown = right.imshow(tiles, cmap="Blues", vmin=0, vmax=0.6)
    right.set(title="cosine of 4 positions (dots) with all others", xticks=[], yticks=[])
    figure.colorbar(shown, ax=right, shrink=0.75, ticks=[0, 0.3, 0.6]).outline.set_visible(False)
    for axes in (left, middle, right):
        axes.spines[:].set_visible(False)
    return figure


def class_attention(model: Clip, pixel_values: Tensor) -> Tensor:
    """How much the class token looks at every patch in the last block: (B, 3, 64, 64) → (B, H, P)."""
    attention = model.vision_encoder.blocks[-1].attention
    inputs: list[Tensor] = []
    hook = attention.register_forward_pre_hook(lambda module, arguments: inputs.append(arguments[0]))
    with torch.inference_mode():
        model.vision_encoder(pixel_values)
        hook.remove()
        return attention.probabilities(inputs[0])[:, :, 0, 1:]


def draw_attention(encoder: nunbit.Encoder) -> Figure:
    """Four drawings, and the class token's attention over them: mean over heads, and each head."""
    rng = np.random.default_rng(11)
    contents = [EIGHT[0], [("orange", "star")], [("green", "cross")], EIGHT[6]]
    pictures = [draw(things, rng) for things in contents]
    pixel_values = torch.from_numpy(np.stack([encoder.preprocessing(picture) for picture in pictures]))
    heads = class_attention(encoder.model, pixel_values)  # (4, H, P)
    maps = torch.cat([heads.mean(1, keepdim=True), heads], dim=1).unflatten(-1, (SIDE // PATCH, -1))
    names = ["mean of heads", *(f"head {number + 1}" for number in range(heads.shape[1]))]
    figure = Figure(figsize=(8, 5.4), layout="constrained")
    grid = figure.subplots(len(pictures), 1 + len(names))
    for row, (picture, things) in enumerate(zip(pictures, contents, strict=True)):
        for column, axes in enumerate(grid[row]):
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            axes.imshow(picture.convert("L") if column else picture, cmap="gray", vmin=0, vmax=255)
            if row == 0 and column:
                axes.set_title(names[column - 1])
            if column:
                weights = maps[row, column - 1].numpy()
                box = (-0.5, SIDE - 0.5, SIDE - 0.5, -0.5)
                axes.imshow(weights, cmap="Reds", alpha=0.65, extent=box, vmin=0, vmax=0.12)
        grid[row, 0].set_ylabel(english(things).replace(" and ", "\nand "), fontsize=7)
    return figure


def _matrix(axes: Any, values: npt.NDArray[np.float64], form: str, top: float) -> None:
    """Cells with their numbers."""
    axes.imshow(values, cmap="Blues", vmin=0, vmax=top, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        color = "white" if value > 0.6 * top else "#333333"
        axes.text(column, row, form.format(value), ha="center", va="center", fontsize=7.5, color=color)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def draw_similarity(encoder: nunbit.Encoder) -> Figure:
    """Eight drawings, eight captions: cosines, what softmax makes of them and what sigmoid would."""
    rng = np.random.default_rng(3)
    pictures = [draw(things, rng) for things in EIGHT]
    captions = [english(things) for things in EIGHT]
    cosines = encoder.encode_image(pictures).astype(np.float64) @ encoder.encode_text(captions).T
    logits = encoder.logit_scale * cosines
    odds = np.exp(logits - logits.max(1, keepdims=True))
    softmax = 100 * odds / odds.sum(1, keepdims=True)
    figure = Figure(figsize=(8, 8.6), layout="constrained")
    parts = figure.add_gridspec(2, 2, height_ratios=(1.5, 1))
    upper, left, right = (figure.add_subplot(part) for part in (parts[0, :], parts[1, 0], parts[1, 1]))
    _matrix(upper, cosines, "{:.2f}", 1)
    _matrix(left, softmax, "{:.0f}", 100)
    _matrix(right, 100 / (1 + np.exp(-logits)), "{:.0f}", 100)
    scale = f"{encoder.logit_scale:.1f}"
    upper.set_title("cosines")
    left.set_title(f"softmax of {scale} x cosine, % of a row")
    right.set_title(f"sigmoid of {scale} x cosine, %")
    upper.xaxis.tick_top()
    upper.set_xticks(
        range(8),
        [caption.replace(" and ", "\nand ").replace("a blue", "a blue") for caption in captions],
        rotation=35,
        ha="left",
    )
    for axes in (upper, left, right):
        for number, picture in enumerate(pictures):
            inset = axes.inset_axes((-1.05, number - 0.46, 0.5, 0.92), transform=axes.transData)
            inset.imshow(picture, interpolation="nearest")
            inset.set_axis_off()
    return figure


def draw_loss(losses: Sequence[float]) -> Figure:
    """The loss of every step, and where it would be if all similarities were equal."""
    size = len(SHOWN) + PAIRS_PER_BATCH
    figure = Figure(figsize=(8, 2.4), layout="constrained")
    axes = figure.subplots()
    axes.plot(losses, color="#9ec5e8", linewidth=0.6)
    window = min(25, len(losses))
    smooth = np.convolve(losses, np.full(window, 1 / window), "valid")
    axes.plot(np.arange(len(smooth)) + window // 2, smooth, color="#1f5f99", linewidth=1.4)
    axes.axhline(math.log(size), color="#888888", linewidth=0.8, linestyle="--")
    axes.text(len(losses), math.log(size) + 0.06, f"ln {size}: all similarities equal", ha="right", fontsize=7.5)
    axes.set(xlabel="step", ylabel="contrastive loss", ylim=(0, None), xlim=(-5, len(losses)))
    return figure


@click.command()
@click.option("--steps", default=1800, show_default=True, help="Training steps.")
@click.option("--into", type=click.Path(path_type=Path), default=ROOT / "docs/figures", help="Folder of the figures.")
@click.option("--model", type=click.Path(path_type=Path), default=ROOT / "build/shapes", help="Folder of the pair.")
def main(steps: int, into: Path, model: Path) -> None:
    """Train the toy pair, print what it can do, draw the figures."""
    torch.manual_seed(0)
    torch.set_num_threads(2)  # sums in another order would end in other weights
    start = time.perf_counter()
    settings = make_settings()
    clip = Clip(settings.config)
    losses = train(clip, settings, steps)
    click.echo(f"trained in {time.perf_counter() - start:.0f} s", err=True)
    ClipTowers(clip, settings, license="Apache-2.0", name="shapes").save(model)
    encoder = nunbit.load(model)
    report = "\n".join(measure(encoder, losses))
    click.echo(report)
    into.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        figures = {
            "patches": draw_patches(encoder),
            "attention": draw_attention(encoder),
            "similarity": draw_similarity(encoder),
            "loss": draw_loss(losses),
        }
        for name, figure in figures.items():
            figure.savefig(into / f"{name}.png", dpi=200, metadata={"Description": report, "Software": None})


if __name__ == "__main__":
    main()
