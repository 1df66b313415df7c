"""CLIP's ResNet: a ResNet-D-like trunk and attention pooling (arXiv 2103.00020, section 2.4).

It differs from the common ResNet in three ways: the stem has three convolutions and an average pool; every stride is
an average pool in front of a convolution, so that nothing aliases; and the last pooling is attention.

Shapes: B batch, H W pixels, C channels, P = (H / 32) * (W / 32) cells, D = 32 * width, E embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from nunbit.errors import UsageError
from nunbit.vision_encoder.config import ResNetConfig
from nunbit.vision_encoder.positions import resize_grid

EXPANSION = 4
STRIDE = 32


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3, average pool, 1 x 1, and a shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        out_channels = EXPANSION * channels
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.avgpool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            self.downsample = nn.Sequential()
            self.downsample.add_module("pool", nn.AvgPool2d(stride))
            self.downsample.add_module("0", nn.Conv2d(in_channels, out_channels, 1, bias=False))
            self.downsample.add_module("1", nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, 4 * channels, H / stride, W / stride)."""
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(self.avgpool(y)))
        return functional.relu(y + self.downsample(x))


class AttentionPool2d(nn.Module):
    """The mean of all cells, with a position, looks at the mean and at all cells with theirs."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        width = STRIDE * config.width
        self.config = config
        cells = (config.image_size // STRIDE) ** 2
        self.positional_embedding = nn.Parameter(width**-0.5 * torch.randn(cells + 1, width))
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.c_proj = nn.Linear(width, config.projection_size)

    def forward(self, grid: Tensor) -> Tensor:
        """(B, D, H / 32, W / 32) → (B, E)."""
        height, width = grid.shape[-2:]
        cells = grid.flatten(2).transpose(1, 2)  # (B, P, D)
        positions = self.positional_embedding
        resized = resize_grid(positions[1:], height, width, self.config.position_interpolation)
        mean = cells.mean(1, keepdim=True)
        tokens = torch.cat([mean + positions[0], cells + resized], dim=1)  # (B, 1 + P, D)
        heads = (self.config.num_attention_heads, -1)
        query = self.q_proj(tokens[:, :1]).unflatten(-1, heads).transpose(1, 2)  # (B, H, 1, D / H)
        key = self.k_proj(tokens).unflatten(-1, heads).transpose(1, 2)
        value = self.v_proj(tokens).unflatten(-1, heads).transpose(1, 2)
        looked = functional.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.c_proj(looked.flatten(1))  # (B, E)
        return out


class ClipResNet(nn.Module):
    """CLIP's ResNet. Publishes ``hidden_size``, ``num_patches`` and ``image_size`` like every vision encoder."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        self.hidden_size, self.image_size = STRIDE * config.width, config.image_size
        self.num_patches = (config.image_size // STRIDE) ** 2
        self.output_size = config.projection_size
        width = config.width
        self.conv1 = nn.Conv2d(3, width // 2, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width // 2)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.avgpool = nn.AvgPool2d(2)
        channels = width
        for number, blocks in enumerate(config.layers, start=1):
            stage, inner = nn.Sequential(), width * 2 ** (number - 1)
            for block in range(blocks):
                stage.append(Bottleneck(channels, inner, stride=2 if number > 1 and block == 0 else 1))
                channels = EXPANSION * inner
            setattr(self, f"layer{number}", stage)
        self.attnpool = AttentionPool2d(config)

    def forward(self, pixel_values: Tensor, *, layer: int | None = None) -> Tensor:
        """Cells of the last stage: (B, 3, H, W) → (B, P, D). ``layer`` has no meaning here and must be None."""
        if layer is not None:
            raise UsageError("a ResNet has stages, not blocks of one width: layer must be None")
        return self._grid(pixel_values).flatten(2).transpose(1, 2)

    def image_features(self, pixel_values: Tensor) -> Tensor:
        """The picture's feature, not of unit length: (B, 3, H, W) → (B, E)."""
        features: Tensor = self.attnpool(self._grid(pixel_values))
        return features

    def _grid(self, x: Tensor) -> Tensor:
        for number in (1, 2, 3):
            convolution, norm = getattr(self, f"conv{number}"), getattr(self, f"bn{number}")
            x = functional.relu(norm(convolution(x)))
        x = self.avgpool(x)  # (B, width, H / 4, W / 4)
        for number in (1, 2, 3, 4):
            x = getattr(self, f"layer{number}")(x)
        return x  # (B, D, H / 32, W / 32)
