"""Adapters: they start as nothing, learn alone, and merge into what they were beside."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nunbit.errors import ConfigError
from nunbit.lora import LoraConfig, add_lora, merge_lora, merged_parameters


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.randn(5, 7))
        self.blocks = nn.ModuleList([nn.Linear(7, 7), nn.Linear(7, 7)])
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = torch.tanh(block(x))
        return x @ self.raw.T + self.conv(torch.ones(1, 3, 3, 3)).sum()


@pytest.fixture
def small() -> Small:
    torch.manual_seed(0)
    return Small()


ALL = LoraConfig(rank=2, alpha=4, targets=("raw", "blocks.*.weight", "conv.weight"))


def test_it_starts_as_what_it_is_added_to(small: Small) -> None:
    x = torch.randn(3, 7)
    before = small(x)
    assert add_lora(small, ALL) == ["raw", "blocks.0.weight", "blocks.1.weight", "conv.weight"]
    assert torch.equal(small(x), before)


def test_only_corrections_learn_and_merging_keeps_the_answer(small: Small) -> None:
    names = [name for name, _ in small.named_parameters()]
    start = merged_parameters(small)
    assert set(start) == set(names)
    add_lora(small, ALL)
    learning = {name for name, parameter in small.named_parameters() if parameter.requires_grad}
    assert len(learning) == 8 and all(name.endswith((".up", ".down")) for name in learning)
    optimizer = torch.optim.SGD([p for p in small.parameters() if p.requires_grad], lr=0.1)
    x = torch.randn(3, 7)
    for _ in range(3):
        optimizer.zero_grad()
        small(x).square().mean().backward()
        optimizer.step()
    learned, end = small(x), merged_parameters(small)
    merge_lora(small)
    assert sorted(name for name, _ in small.named_parameters()) == sorted(names)
    torch.testing.assert_close(small(x), learned)
    for name, parameter in small.named_parameters():
        assert torch.equal(parameter, end[name])
        assert torch.equal(parameter, start[name]) == (not name.endswith("weight") and name != "raw"), name


def test_the_correction_is_alpha_over_rank_times_the_product(small: Small) -> None:
    start = small.raw.detach().clone()
    add_lora(small, LoraConfig(rank=2, alpha=6, targets=("raw",)))
    correction = small.parametrizations.raw[0]
    with torch.no_grad():
        correction.up.normal_()
    torch.testing.assert_close(small.raw, start + 3 * correction.up @ correction.down)


def test_a_pattern_that_fits_nothing_is_told(small: Small) -> None:
    with pytest.raises(ConfigError, match=r"'blocks\.\*\.wieght'") as error:
        add_lora(small, LoraConfig(targets=("blocks.*.wieght",)))
    assert "blocks.0.weight" in error.value.hint
    with pytest.raises(ConfigError, match="rank of an adapter is 0"):
        LoraConfig(rank=0)
