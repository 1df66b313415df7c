"""Pictures as they might also have been taken: one affine view and one change of color each, for a whole batch at once.

What is drawn depends on the seed and the number of the step alone, for the whole batch of all processes. So a run that
goes on, or has another number of processes, sees the same pictures.

Shapes: N pictures, S side in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nunbit.errors import ConfigError

if TYPE_CHECKING:
    from nunbit.types import FloatArray

_GRAY = (0.299, 0.587, 0.114)
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentationConfig:
    """How much a picture is changed; the defaults change nothing.

    Attributes:
        crop: Smallest and largest share of the side that is looked at, drawn evenly in the logarithm. Above 1 the
            picture gets smaller, and its edge is continued around it.
        stretch: Largest factor between the two sides' shares.
        rotate: Largest turn either way, in degrees.
        flip: How often left and right change places.
        brightness: Largest relative change.
        contrast: Largest relative change, around the picture's mean.
        saturation: Largest relative change.
        hue: Largest turn of the color circle either way, as a share of it.
        grayscale: How often all color is taken away.
        warp: Strength of a smooth random bend; 0.03 moves points by some 3 % of half the side.
        edges: How often lines are drawn where the picture's brightness changes, as a drawing has them.
        erase: How often a random rectangle of up to a quarter of the picture is filled with a random color.
    """

    crop: tuple[float, float] = (1.0, 1.0)
    stretch: float = 1.0
    rotate: float = 0.0
    flip: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    grayscale: float = 0.0
    warp: float = 0.0
    edges: float = 0.0
    erase: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.crop[0] <= self.crop[1] or self.stretch < 1:
            raise ConfigError(f"crop is {self.crop}, stretch {self.stretch}: expected 0 < low <= high, at least 1")
        if not all(0 <= share <= 1 for share in (self.flip, self.grayscale, self.erase, self.edges, self.hue)):
            raise ConfigError("flip, grayscale, erase, edges and hue are shares, in [0, 1]")
        if min(self.rotate, self.brightness, self.contrast, self.saturation, self.warp) < 0:
            raise ConfigError("rotate, brightness, contrast, saturation and warp must not be negative")


@dataclass(frozen=True, slots=True)
class Changes:
    """What happens to each of N pictures.

    Attributes:
        views: (N, 2, 3) float32: where each pixel that comes out is taken from, in coordinates from -1 to 1.
        colors: (N, 3, 3) float32, applied to (red, green, blue).
        contrast: (N,) float32, the factor around the picture's mean.
        bends: (N, 2, 5, 5) float32, how far points of a coarse grid are moved; all 0 for none.
        edges: (N,) float32, how dark lines along edges are; 0 for none.
        erased: (N, 7) float32: left, top, right, bottom in [0, 1], and a color; an empty rectangle erases nothing.
    """

    views: FloatArray
    colors: FloatArray
    contrast: FloatArray
    bends: FloatArray
    edges: FloatArray
    erased: FloatArray

    def part(self, numbers: slice) -> Changes:
        """The changes of some of the pictures."""
        return Changes(*(getattr(self, field.name)[numbers] for field in fields(self)))


def draw_changes(config: AugmentationConfig, count: int, *, seed: int, step: int) -> Changes:
    """Draw what happens to N pictures.

    Args:
        config: How much may happen.
        count: N.
        seed: Of the run.
        step: Its number; with the seed it decides everything.
    """
    rng = np.random.default_rng([seed, step])
    size = np.exp(rng.uniform(math.log(config.crop[0]), math.log(config.crop[1]), count))
    stretch = np.exp(rng.uniform(-0.5, 0.5, count) * math.log(config.stretch))
    shares = np.stack([size * stretch, size / stretch], axis=1)  # (N, 2)
    shift = rng.uniform(-1, 1, (count, 2)) * np.abs(1 - shares)
    turn = np.deg2rad(rng.uniform(-1, 1, count) * config.rotate)
    mirror = np.where(rng.random(count) < config.flip, -1.0, 1.0)
    cos, sin = np.cos(turn), np.sin(turn)
    views = np.empty((count, 2, 3))
    views[:, 0] = np.stack([cos * shares[:, 0] * mirror, -sin * shares[:, 1], shift[:, 0]], axis=1)
    views[:, 1] = np.stack([sin * shares[:, 0] * mirror, cos * shares[:, 1], shift[:, 1]], axis=1)
    colors = _draw_colors(config, count, rng)
    contrast = 1 + rng.uniform(-1, 1, count) * config.contrast
    bends = rng.normal(0, 1, (count, 2, 5, 5)) * config.warp
    edges = rng.uniform(1, 4, count) * (rng.random(count) < config.edges)
    erased = _draw_erased(config, count, rng)
    return Changes(*(part.astype(np.float32) for part in (views, colors, contrast, bends, edges, erased)))


def _draw_colors(config: AugmentationConfig, count: int, rng: np.random.Generator) -> np.ndarray:
    """Hue, saturation and brightness as one matrix: a turn and a stretch of the two color axes of YIQ."""
    turn = 2 * np.pi * rng.uniform(-1, 1, count) * config.hue
    saturation = 1 + rng.uniform(-1, 1, count) * config.saturation
    saturation = np.where(rng.random(count) < config.grayscale, 0.0, saturation)
    brightness = 1 + rng.uniform(-1, 1, count) * config.brightness
    inner = np.zeros((count, 3, 3))
    inner[:, 0, 0] = 1
    inner[:, 1, 1] = inner[:, 2, 2] = saturation * np.cos(turn)
    inner[:, 2, 1] = saturation * np.sin(turn)
    inner[:, 1, 2] = -inner[:, 2, 1]
    colors: np.ndarray = brightness[:, None, None] * (_FROM_YIQ @ inner @ _TO_YIQ)
    return colors


def _draw_erased(config: AugmentationConfig, count: int, rng: np.random.Generator) -> np.ndarray:
    sides = rng.uniform(0.1, 0.5, (count, 2)) * (rng.random((count, 1)) < config.erase)
    corner = rng.uniform(0, 1, (count, 2)) * (1 - sides)
    return np.concatenate([corner, corner + sides, rng.random((count, 3))], axis=1)


def augment(pictures: Tensor, changes: Changes) -> Tensor:
    """Apply changes.

    Args:
        pictures: (N, S, S, 3) uint8.
        changes: One for each.

    Returns:
        (N, 3, S, S) float32 in [0, 1].
    """
    views, colors, contrast, bends, edges, erased = (
        torch.from_numpy(getattr(changes, field.name)).to(pictures.device) for field in fields(changes)
    )
    x = _view(pictures.permute(0, 3, 1, 2).float() / 255, views, bends)  # (N, 3, S, S)
    weights = torch.tensor(_GRAY, device=x.device)
    gray = torch.einsum("nchw,c->nhw", x, weights)
    flat = torch.bmm(colors * contrast[:, None, None], x.flatten(2))  # (N, 3, S * S)
    x = (flat + ((1 - contrast) * gray.mean((1, 2)))[:, None, None]).clamp(0, 1).view_as(x)
    if edges.any():
        x = x * (1 - _lines(gray) * edges[:, None, None]).clamp(0, 1)[:, None]
    if (erased[:, 2] > erased[:, 0]).any():
        x = _erase(x, erased)
    return x


def _view(x: Tensor, views: Tensor, bends: Tensor) -> Tensor:
    """Look at (N, 3, S, S) through views and bends; what lies outside continues the picture's edge."""
    straight = torch.eye(2, 3, device=x.device).expand_as(views)
    if torch.equal(views, straight) and not bends.any():
        return x
    grid = functional.affine_grid(views, list(x.shape), align_corners=False)  # (N, S, S, 2)
    if bends.any():
        smooth = functional.interpolate(bends, x.shape[2:], mode="bicubic", align_corners=False)  # (N, 2, S, S)
        grid = grid + smooth.permute(0, 2, 3, 1)
    # Bilinear sampling would leave pictures softer than those that the model meets later.
    seen = functional.grid_sample(x, grid, mode="bicubic", padding_mode="border", align_corners=False)
    return seen.clamp(0, 1)


def _lines(gray: Tensor) -> Tensor:
    """(N, S, S) brightness → how much it changes there, in [0, 1]."""
    across = functional.pad((gray[:, :, 2:] - gray[:, :, :-2]).abs(), (1, 1))
    down = functional.pad((gray[:, 2:] - gray[:, :-2]).abs(), (0, 0, 1, 1))
    return (across + down).clamp(max=1)


def _erase(x: Tensor, erased: Tensor) -> Tensor:
    middle = (torch.arange(x.shape[-1], device=x.device) + 0.5) / x.shape[-1]  # (S,)
    across = (middle >= erased[:, 0, None]) & (middle < erased[:, 2, None])  # (N, S)
    down = (middle >= erased[:, 1, None]) & (middle < erased[:, 3, None])
    inside = (down[:, :, None] & across[:, None, :])[:, None]  # (N, 1, S, S)
    return torch.where(inside, erased[:, 4:, None, None], x)
