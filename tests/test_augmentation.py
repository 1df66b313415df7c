"""Changes of pictures: repeatable, the same whoever draws them, and each doing what it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nunbit.augmentation import AugmentationConfig, augment, draw_changes
from nunbit.errors import ConfigError

ALL = AugmentationConfig(
    crop=(0.7, 1.3), stretch=1.2, rotate=20, flip=0.5, brightness=0.2, contrast=0.2, saturation=0.3, hue=0.1,
    grayscale=0.2, warp=0.03, edges=0.3, erase=0.3,
)  # fmt: skip


def pictures(count: int = 6, side: int = 16) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8))


def test_by_default_nothing_changes() -> None:
    given_ = pictures()
    got = augment(given_, draw_changes(AugmentationConfig(), 6, seed=0, step=0))
    torch.testing.assert_close(got, given_.permute(0, 3, 1, 2) / 255, atol=1e-6, rtol=0)


@settings(max_examples=20, deadline=None)
@given(step=st.integers(0, 10**6), cut=st.integers(1, 5))
def test_a_share_of_a_batch_is_changed_as_in_the_whole(step: int, cut: int) -> None:
    whole = draw_changes(ALL, 6, seed=3, step=step)
    parts = [augment(pictures()[:cut], whole.part(slice(0, cut))), augment(pictures()[cut:], whole.part(slice(cut, 6)))]
    torch.testing.assert_close(torch.cat(parts), augment(pictures(), whole), atol=1e-6, rtol=0)


def test_seed_and_step_decide() -> None:
    first, again = (draw_changes(ALL, 6, seed=1, step=5) for _ in range(2))
    assert np.array_equal(first.views, again.views) and np.array_equal(first.colors, again.colors)
    assert not np.array_equal(first.views, draw_changes(ALL, 6, seed=1, step=6).views)
    assert not np.array_equal(first.views, draw_changes(ALL, 6, seed=2, step=5).views)


def test_what_comes_out_is_a_picture() -> None:
    got = augment(pictures(64), draw_changes(ALL, 64, seed=0, step=0))
    assert got.shape == (64, 3, 16, 16) and got.dtype == torch.float32
    assert got.min() >= 0 and got.max() <= 1


def test_a_flip_exchanges_left_and_right() -> None:
    got = augment(pictures(), draw_changes(AugmentationConfig(flip=1.0), 6, seed=0, step=0))
    torch.testing.assert_close(got, pictures().permute(0, 3, 1, 2).flip(-1) / 255, atol=1e-5, rtol=0)


def test_a_quarter_turn_turns() -> None:
    changes = draw_changes(AugmentationConfig(), 6, seed=0, step=0)
    changes.views[:] = np.array([[0, -1, 0], [1, 0, 0]])
    expected = torch.rot90(pictures().permute(0, 3, 1, 2), -1, (-2, -1)) / 255
    got = augment(pictures(), changes)
    other = torch.rot90(pictures().permute(0, 3, 1, 2), 1, (-2, -1)) / 255
    assert min((got - expected).abs().max(), (got - other).abs().max()) < 1e-5


def test_a_crop_above_one_makes_the_picture_smaller_and_continues_its_edge() -> None:
    ground = torch.full((1, 16, 16, 3), 255, dtype=torch.uint8)
    ground[:, 2:14, 2:14] = 0
    changes = draw_changes(AugmentationConfig(crop=(2.0, 2.0)), 1, seed=0, step=0)
    got = augment(ground, changes)
    assert (got < 0.5).sum() == pytest.approx(3 * 6 * 6, abs=45)  # a quarter of 12 x 12 pixels in three colors
    assert torch.all(got[..., 0] > 0.99) or torch.all(got[..., -1] > 0.99)


def test_without_color_all_channels_are_one() -> None:
    got = augment(pictures(), draw_changes(AugmentationConfig(grayscale=1.0), 6, seed=0, step=0))
    assert (got.amax(1) - got.amin(1)).max() < 0.01


def test_hue_keeps_what_is_gray() -> None:
    gray = pictures()[..., :1].expand(-1, -1, -1, 3).contiguous()
    got = augment(gray, draw_changes(AugmentationConfig(hue=0.5, saturation=0.5), 6, seed=0, step=0))
    torch.testing.assert_close(got, gray.permute(0, 3, 1, 2) / 255, atol=0.01, rtol=0)


def test_lines_are_drawn_where_brightness_changes_only() -> None:
    half = torch.full((1, 16, 16, 3), 200, dtype=torch.uint8)
    half[:, :, 8:] = 100
    got = augment(half, draw_changes(AugmentationConfig(edges=1.0), 1, seed=0, step=0))
    plain = half.permute(0, 3, 1, 2) / 255
    assert (got < plain - 0.05).any(1)[0, 4].nonzero().flatten().tolist() == [7, 8]
    torch.testing.assert_close(got[..., :6], plain[..., :6])


def test_a_bend_moves_points_a_little() -> None:
    smooth = torch.linspace(0, 255, 32).round().to(torch.uint8)[None, None, :, None].expand(1, 32, 32, 3).contiguous()
    got = augment(smooth, draw_changes(AugmentationConfig(warp=0.05), 1, seed=0, step=0))
    moved = (got[0, 0] - smooth[0, ..., 0] / 255).abs()
    assert 0.005 < moved.mean() < 0.1


def test_erasing_fills_rectangles_of_one_color() -> None:
    white = torch.full((8, 20, 20, 3), 255, dtype=torch.uint8)
    got = augment(white, draw_changes(AugmentationConfig(erase=1.0), 8, seed=0, step=0))
    changed = (got < 1).any(1)  # (8, 20, 20)
    shares = changed.float().mean((1, 2))
    assert shares.min() > 0 and shares.max() <= 0.27
    for picture, mask in zip(got, changed, strict=True):
        assert len(torch.unique(picture[:, mask].T, dim=0)) == 1


@pytest.mark.parametrize(
    "wrong", [{"crop": (0.0, 1.0)}, {"crop": (1.2, 1.0)}, {"stretch": 0.5}, {"flip": 1.5}, {"rotate": -1.0}]
)
def test_what_cannot_be_meant_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        AugmentationConfig(**wrong)  # type: ignore[arg-type]
