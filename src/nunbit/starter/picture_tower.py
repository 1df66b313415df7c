"""EfficientNet-Lite: the starter's picture tower (Lite2), a student's (Lite0), and the reader of published weights.

It is written here rather than taken from a model library because the libraries that carry it import a compiled
torchvision, which does not load beside the CPU build of torch (``docs/adr/0002-default-model.md``). A test compares
every output with the reference implementation.

Shapes: B batch, H W pixels, D width.
Paper: EfficientNet, arXiv 1905.11946; the Lite variants drop squeeze-and-excitation and use ReLU6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nunbit.errors import UsageError, WeightsError

M = TypeVar("M", bound=nn.Module)
FEATURE_SIZE = 1280
NUM_CLASSES = 1000


@dataclass(frozen=True, slots=True)
class LiteSize:
    """A published size.

    Attributes:
        name: As its authors call it.
        width: Channel multiplier.
        depth: Block-count multiplier. The first and the last stage are never deepened.
    """

    name: str
    width: float
    depth: float


LITE0 = LiteSize("EfficientNet-Lite0", 1.0, 1.0)
LITE2 = LiteSize("EfficientNet-Lite2", 1.1, 1.2)


@dataclass(frozen=True, slots=True)
class Stage:
    """A run of inverted-residual blocks; ``stride`` belongs to the first of them."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
STEM_CHANNELS = 32


def scale_channels(channels: int, width: float) -> int:
    """Scale a channel count and round it to a multiple of 8, never down by more than a tenth."""
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


class ConvNorm(nn.Module):
    """Convolution with TensorFlow's "SAME" padding, batch norm, optionally ReLU6.

    "SAME" pads the far side more where the total is odd. The published weights were trained so; padding both sides
    alike shifts every feature map by half a pixel.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, active: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
        self.norm: nn.BatchNorm2d | nn.Identity = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, outputs, ceil(H / stride), ceil(W / stride))."""
        height, width = (self._padding(size) for size in x.shape[-2:])
        if height % 2 or width % 2:
            x = functional.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
            height = width = 0
        conv = self.conv
        symmetric = (height // 2, width // 2)  # padding inside the convolution spares a copy of the picture
        x = functional.conv2d(x, conv.weight, conv.bias, conv.stride, symmetric, 1, conv.groups)
        x = self.norm(x)
        return functional.relu6(x, inplace=not self.training) if self.active else x

    def fold(self) -> None:
        """Fold the batch norm, as it is in evaluation mode, into the convolution: the same answers, twice as fast."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv, self.norm)
            self.norm = nn.Identity()

    def _padding(self, size: int) -> int:
        kernel, stride = self.conv.kernel_size[0], self.conv.stride[0]
        return max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)


class InvertedResidual(nn.Module):
    """Expand, depth-wise convolution, project; added to the input where shapes allow."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = inputs * expand
        self.expand = ConvNorm(inputs, hidden, 1) if expand != 1 else nn.Identity()
        self.depthwise = ConvNorm(hidden, hidden, kernel, stride=stride, groups=hidden)
        self.project = ConvNorm(hidden, outputs, 1, active=False)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, outputs, H / stride, W / stride)."""
        out: Tensor = self.project(self.depthwise(self.expand(x)))
        return out + x if self.residual else out


class LiteBackbone(nn.Module):
    """EfficientNet-Lite without its classifier.

    Args:
        size: Its width and depth.
    """

    def __init__(self, size: LiteSize) -> None:
        super().__init__()
        self.stem = ConvNorm(3, STEM_CHANNELS, 3, stride=2)
        blocks: list[nn.Module] = []
        inputs = STEM_CHANNELS
        for number, stage in enumerate(STAGES):
            outputs = scale_channels(stage.channels, size.width)
            deepened = 0 < number < len(STAGES) - 1
            repeats = math.ceil(stage.repeats * size.depth) if deepened else stage.repeats
            for repeat in range(repeats):
                stride = stage.stride if repeat == 0 else 1
                blocks.append(
                    InvertedResidual(inputs, outputs, kernel=stage.kernel, stride=stride, expand=stage.expand)
                )
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = ConvNorm(inputs, FEATURE_SIZE, 1)

    def feature_map(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, H, W) float32 in about [-1, 1] → (B, 1280, ceil(H / 32), ceil(W / 32)), values ≥ 0."""
        out: Tensor = self.head(self.blocks(self.stem(pixel_values)))
        return out

    def features(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, H, W) float32, ``(x - 127) / 128`` of RGB in [0, 255] → (B, 1280), the mean over positions."""
        return self.feature_map(pixel_values).mean(dim=(2, 3))

    def block_maps(self, pixel_values: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Maps behind some of the blocks; those after the last one asked for are not computed.

        Args:
            pixel_values: As `feature_map` takes it.
            layers: Behind so many blocks, each from 1 to the number of blocks.

        Returns:
            (B, C, H / stride, W / stride) for each of ``layers``, in their order.

        Raises:
            UsageError: There is no such block.
        """
        if not layers or not all(1 <= layer <= len(self.blocks) for layer in layers):
            raise UsageError(f"layers {tuple(layers)}: the starter has blocks 1 to {len(self.blocks)}")
        maps: dict[int, Tensor] = {}
        x = self.stem(pixel_values)
        for number, block in enumerate(list(self.blocks)[: max(layers)], start=1):
            x = block(x)
            if number in layers:
                maps[number] = x.clone()  # the next block may write over its input
        return [maps[layer] for layer in layers]


class EfficientNetLite(LiteBackbone):
    """EfficientNet-Lite as an encoder that keeps its classifier.

    Args:
        size: Its width and depth.
    """

    def __init__(self, size: LiteSize) -> None:
        super().__init__(size)
        self.classifier = nn.Linear(FEATURE_SIZE, NUM_CLASSES)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Features and class logits.

        Args:
            pixel_values: (B, 3, H, W) float32, ``(x - 127) / 128`` of RGB in [0, 255].

        Returns:
            image_features (B, 1280), the mean over positions, and ImageNet logits (B, 1000).
        """
        features = self.features(pixel_values)
        return features, self.classifier(features)


def load_efficientnet_lite(path: Path, size: LiteSize) -> EfficientNetLite:
    """Build EfficientNet-Lite and fill it from its published ``.pth`` file.

    The file names its tensors after another implementation; both list them in the order of the forward pass, so
    they are matched by order, and every shape and role (``weight``, ``running_mean``, ...) is checked.

    Args:
        path: The file.
        size: Whose weights it holds.

    Raises:
        WeightsError: The tensors are not those of this size.
    """
    published: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    model = EfficientNetLite(size)
    own = model.state_dict()
    if len(published) != len(own):
        raise WeightsError(f"{path.name} holds {len(published)} tensors, {size.name} has {len(own)}")
    renamed = dict(zip(own, published.values(), strict=True))
    wrong = [
        f"{theirs} {tuple(value.shape)} for {ours} {tuple(own[ours].shape)}"
        for (theirs, value), ours in zip(published.items(), own, strict=True)
        if value.shape != own[ours].shape or theirs.rsplit(".", 1)[-1] != ours.rsplit(".", 1)[-1]
    ]
    if wrong:
        raise WeightsError(f"{path.name} does not fit {size.name}: {', '.join(wrong[:5])}")
    model.load_state_dict(renamed)
    return model.eval()


def prepare_for_inference(model: M) -> M:
    """Fold every batch norm and lay the weights out channels-last, in place; returns the model."""
    return fold_norms(model).requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def fold_norms(model: M) -> M:
    """Fold every batch norm of a model in evaluation mode, in place; returns the model."""
    for module in model.modules():
        if isinstance(module, ConvNorm):
            module.fold()
    return model
