"""Draws the figures of docs/models.md, from the toy contrastive pair of toy_pair.py, which it trains first.

Usage: python docs/draw_models.py [--steps 1800] [--into docs/figures] [--model build/shapes]

The pair is saved as a model folder and opened again by `nunbit.load`, so that the figures show what any model of that
form would do. What is measured is printed, and written into every figure ("Description"), where a test compares it with
the page.

Shapes: B batch, H heads, P patches.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import matplotlib
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from toy_pair import (
    COLORS,
    DRAWN,
    PAIRS_PER_BATCH,
    PATCH,
    SHAPES,
    SHOWN,
    SIDE,
    Thing,
    draw,
    english,
    make_settings,
    measure,
    spoil,
    train,
)

import nunbit
from nunbit.clip import Clip
from nunbit.pretrained.encoder import ClipTowers
from nunbit.recognition import Labels

ROOT = Path(__file__).resolve().parents[1]
ALONE: list[Thing] = [("red", "circle"), ("red", "square"), ("blue", "square"), ("blue", "star"), ("green", "triangle")]
EXCHANGED: list[list[Thing]] = [[("blue", "star"), ("red", "square")], [("red", "star"), ("blue", "square")]]
EIGHT = [*([thing] for thing in ALONE), [("yellow", "cross")], *EXCHANGED]
STYLE = {"font.size": 8, "axes.titlesize": 8.5, "axes.spines.top": False, "axes.spines.right": False}


def draw_patches(encoder: nunbit.Encoder) -> Figure:
    """The picture, its patches, and which positions the model holds to be alike."""
    picture = np.asarray(draw([("blue", "star"), ("red", "square")], np.random.default_rng(5)))
    figure = Figure(figsize=(8, 2.9), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    left.imshow(picture, interpolation="nearest")
    left.set(title="pixels: (3, 64, 64)", xticks=[0, 63], yticks=[0, 63])
    count = SIDE // PATCH
    cut = picture.reshape(count, PATCH, count, PATCH, 3)
    apart = np.pad(cut, [(0, 0), (0, 2), (0, 0), (0, 2), (0, 0)], constant_values=255)
    middle.imshow(apart.reshape(count * (PATCH + 2), -1, 3)[:-2, :-2], interpolation="nearest")
    middle.set(title="64 patches of (3, 8, 8)", xticks=[], yticks=[])
    positions = torch.nn.functional.normalize(encoder.model.vision_encoder.position_embedding[1:], dim=-1)
    chosen = [(1, 1), (0, 4), (4, 3), (6, 5)]
    maps = [(positions @ positions[row * count + column]).reshape(count, count) for row, column in chosen]
    tiles = np.full((2 * count + 1, 2 * count + 1), np.nan)
    for number, (tile, (row, column)) in enumerate(zip(maps, chosen, strict=True)):
        top, start = (count + 1) * (number // 2), (count + 1) * (number % 2)
        tiles[top : top + count, start : start + count] = tile.numpy()
        right.plot(start + column, top + row, "o", color="#222222", markersize=3)
    shown = right.imshow(tiles, cmap="Blues", vmin=0, vmax=0.6)
    right.set(title="cosine of a position (dot) with all", xticks=[], yticks=[])
    figure.colorbar(shown, ax=right, shrink=0.75, ticks=[0, 0.3, 0.6]).outline.set_visible(False)
    for axes in (left, middle, right):
        axes.spines[:].set_visible(False)
    return figure


def class_attention(encoder: nunbit.Encoder, pictures: Sequence[Image.Image]) -> Tensor:
    """How much the class token looks at every patch in the last block: B pictures → (B, H, P)."""
    pixel_values = torch.from_numpy(np.stack([encoder.preprocessing(picture) for picture in pictures]))
    attention = encoder.model.vision_encoder.blocks[-1].attention
    inputs: list[Tensor] = []
    hook = attention.register_forward_pre_hook(lambda module, arguments: inputs.append(arguments[0]))
    with torch.inference_mode():
        encoder.model.vision_encoder(pixel_values)
        hook.remove()
        return attention.probabilities(inputs[0])[:, :, 0, 1:]


def attention_by_color(encoder: nunbit.Encoder) -> list[str]:
    """How much of the class token's attention goes to patches, as lines; the rest goes to the class token itself."""
    rng = np.random.default_rng(4)
    lines = ["attention of the class token that goes to patches, %, in heads 1 to 4"]
    for color in COLORS:
        pictures = [draw([(color, shape)], rng) for shape in SHAPES for _ in range(DRAWN // 25)]
        shares = class_attention(encoder, pictures).sum(-1).mean(0)
        lines.append(f"{color:<10}" + "".join(f"{100 * share:>6.0f}" for share in shares))
    return lines


def draw_attention(encoder: nunbit.Encoder) -> Figure:
    """Four drawings, and the class token's attention over them: mean over heads, and each head."""
    rng = np.random.default_rng(11)
    contents = [EIGHT[0], [("yellow", "star")], [("green", "cross")], EXCHANGED[0]]
    pictures = [draw(things, rng) for things in contents]
    heads = class_attention(encoder, pictures)  # (4, H, P)
    maps = torch.cat([heads.mean(1, keepdim=True), heads], dim=1).unflatten(-1, (SIDE // PATCH, -1))
    names = ["mean of heads", *(f"head {number + 1}" for number in range(heads.shape[1]))]
    figure = Figure(figsize=(8, 5.4), layout="constrained")
    grid = figure.subplots(len(pictures), 1 + len(names))
    for row, (picture, things) in enumerate(zip(pictures, contents, strict=True)):
        for column, axes in enumerate(grid[row]):
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            gray = picture.convert("L") if column else picture
            axes.imshow(gray, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        grid[row, 0].set_ylabel(english(things).replace(" and ", "\nand "), fontsize=7)
        for axes, name, weights in zip(grid[row, 1:], names, maps[row].numpy(), strict=True):
            extent = (-0.5, SIDE - 0.5, SIDE - 0.5, -0.5)
            axes.imshow(weights, cmap="Reds", alpha=0.65, extent=extent, vmin=0, vmax=0.12, interpolation="nearest")
            axes.set_xlabel(f"{weights.sum():.0%} on patches", fontsize=6.5, labelpad=2)
            if row == 0:
                axes.set_title(name)
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
    images, texts = encoder.encode_image(pictures), encoder.encode_text(captions)
    cosines = images @ texts.T
    scale = encoder.logit_scale
    softmax = Labels.from_embeddings(captions, texts, logit_scale=scale)
    sigmoid = Labels.from_embeddings(captions, texts, logit_scale=scale, logit_bias=0.0)
    figure = Figure(figsize=(8, 7.6), layout="constrained")
    parts = figure.add_gridspec(2, 2, height_ratios=(1.4, 1))
    figure.get_layout_engine().set(hspace=0.05)
    upper, left, right = (figure.add_subplot(part) for part in (parts[0, :], parts[1, 0], parts[1, 1]))
    _matrix(upper, cosines, "{:.2f}", 1)
    _matrix(left, 100 * np.stack([softmax.probability(row) for row in cosines]), "{:.0f}", 100)
    _matrix(right, 100 * np.stack([sigmoid.probability(row) for row in cosines]), "{:.0f}", 100)
    upper.text(-1.05, -0.62, "cosines", fontsize=8.5)
    left.set_title(f"softmax of {scale:.1f} x cosine, % of each row")
    right.set_title(f"sigmoid of {scale:.1f} x cosine, % of each pair")
    upper.xaxis.tick_top()
    broken = [caption.replace(" and ", "\nand ") for caption in captions]
    upper.set_xticks(range(8), broken, rotation=30, ha="left")
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
    torch.set_num_threads(1)  # sums in another order would end in other weights
    settings = make_settings()
    clip = Clip(settings.config)
    losses = train(clip, settings, steps)
    ClipTowers(clip, settings, license="Apache-2.0", name="shapes").save(model)
    encoder = nunbit.load(model, engine="torch")
    report = "\n".join([*measure(encoder, losses), *spoil(model), *attention_by_color(encoder)])
    click.echo(report)
    into.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        figures = {"patches": draw_patches(encoder), "attention": draw_attention(encoder)}
        figures |= {"similarity": draw_similarity(encoder), "loss": draw_loss(losses)}
        for name, figure in figures.items():
            _save(figure, into / f"{name}.png", report)


def _save(figure: Figure, path: Path, report: str) -> None:
    """A PNG of few colors, which is half as large, with the figures that belong to it."""
    buffer, note = io.BytesIO(), PngInfo()
    figure.savefig(buffer, dpi=200)
    note.add_text("Description", report)
    Image.open(buffer).convert("RGB").quantize(256, kmeans=2).save(path, pnginfo=note, optimize=True)


if __name__ == "__main__":
    main()
