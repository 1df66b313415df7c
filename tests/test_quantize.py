"""Rounding to 8 bits: which products, over which ranges, and what it costs."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

import nunbit
from clip_models import make_towers
from nunbit.encode import Encoder
from nunbit.engine import check_inputs
from nunbit.engine.machine import this_machine
from nunbit.engine.openvino_models import CompiledModel, convert
from nunbit.engine.quantize import observe, quantizable, quantize
from nunbit.programs import Program


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    make_towers(tmp_path_factory.mktemp("vocabulary")).save(folder := tmp_path_factory.mktemp("clip"))
    return nunbit.load(folder, engine="torch")


@pytest.fixture(scope="module")
def tower(encoder: Encoder) -> tuple[Any, Any, Any]:
    """A picture tower as OpenVINO model, calibration batches, and torch's rows for inputs."""
    batches, checks = check_inputs.pixel_batches(encoder.preprocessing, None)  # type: ignore[arg-type]
    return convert(encoder.towers.programs()["image"], "picture"), batches, (checks, encoder.encode_pixels(checks))


def rows_of(model: Any, inputs: Any) -> Any:
    return CompiledModel(model, "int8", this_machine(), streams=1)(inputs)


def test_every_product_with_weights_is_rounded_to_8_bits_unless_it_is_kept(tower: tuple[Any, Any, Any]) -> None:
    model, batches, _ = tower
    names = [node.get_friendly_name() for node in quantizable(model)]
    kinds = [node.get_type_name() for node in model.get_ordered_ops()]
    assert "FakeQuantize" not in kinds
    assert len(names) == 1 + 2 * 4  # patches, and two blocks of four; not the projection of one row
    ranges = observe(model, batches)
    for keep in ([], names[:3]):
        rounded = quantize(model, ranges, keep=keep)
        kinds = [node.get_type_name() for node in rounded.get_ordered_ops()]
        assert kinds.count("FakeQuantize") == len(names) - len(keep)


def test_ranges_are_those_of_the_inputs(tower: tuple[Any, Any, Any]) -> None:
    model, batches, _ = tower
    patches = observe(model, batches)[quantizable(model)[0].get_friendly_name()]
    np.testing.assert_allclose(
        patches.high, np.mean([b.max((0, 2, 3)) for b in batches], 0).reshape(patches.high.shape), rtol=1e-5
    )
    np.testing.assert_allclose(
        patches.low, np.mean([b.min((0, 2, 3)) for b in batches], 0).reshape(patches.low.shape), rtol=1e-5
    )


@pytest.mark.parametrize("normed", [False, True])
def test_large_channels_are_smoothed_away(normed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The case that plain rounding fails: one channel a hundred times as large as the others."""
    torch.manual_seed(0)
    norm, linear = torch.nn.LayerNorm(64), torch.nn.Linear(64, 32)
    with torch.no_grad():
        linear.weight[:, 0] /= 100
        norm.weight[0] *= 100
    module = torch.nn.Sequential(norm, linear) if normed else linear
    model = convert(Program(module, (module,), torch.zeros(2, 16, 64), {0: ("batch", None)}), "linear")
    inputs = np.random.default_rng(0).standard_normal((8, 16, 64), np.float32)
    inputs[..., 0] *= 1 if normed else 100
    with torch.no_grad():
        expected = module(torch.from_numpy(inputs)).numpy()
    ranges = observe(model, [inputs])
    smooth = np.abs(rows_of(quantize(model, ranges), inputs) - expected).mean()
    monkeypatch.setattr("nunbit.engine.quantize._smoothing", lambda *_, **__: np.ones(64, np.float32))
    plain = np.abs(rows_of(quantize(model, ranges), inputs) - expected).mean()
    assert smooth < 0.01 < 0.1 < plain


def test_each_output_channel_has_its_own_scale() -> None:
    """One scale for all would round the small channels to nothing."""
    torch.manual_seed(0)
    linear = torch.nn.Linear(64, 32)
    with torch.no_grad():
        linear.weight.mul_(torch.logspace(0, -3, 32)[:, None])
        linear.bias.zero_()
    model = convert(Program(linear, (linear,), torch.zeros(2, 16, 64), {0: ("batch", None)}), "linear")
    inputs = np.random.default_rng(0).standard_normal((8, 16, 64), np.float32)
    with torch.no_grad():
        expected = linear(torch.from_numpy(inputs)).numpy()
    error = np.abs(rows_of(quantize(model, observe(model, [inputs])), inputs) - expected).mean((0, 1))
    assert (error / np.abs(expected).mean((0, 1))).max() < 0.03


@pytest.mark.parametrize("first", [torch.nn.Conv2d(3, 16, 4, 4), torch.nn.Conv2d(3, 12, 3, 2, groups=3)])
def test_convolutions_and_what_follows_them(first: torch.nn.Module) -> None:
    """Tokens from a picture's positions are a transposed input, whose channels stand elsewhere."""
    torch.manual_seed(0)
    linear = torch.nn.Linear(first.out_channels, 24)  # type: ignore[arg-type]
    modules = (first, linear)
    program = Program(
        lambda x: linear(first(x).flatten(2).transpose(1, 2)), modules, torch.zeros(2, 3, 32, 32), {0: ("b", None)}
    )
    model = convert(program, "tokens")
    inputs = np.random.default_rng(0).standard_normal((4, 3, 32, 32), np.float32)
    with torch.no_grad():
        expected = program.embed(torch.from_numpy(inputs)).numpy()
    rows = rows_of(quantize(model, observe(model, [inputs])), inputs)
    assert len(quantizable(model)) == 2
    assert (rows * expected).sum() / np.linalg.norm(rows) / np.linalg.norm(expected) > 0.999


def test_own_pictures_are_the_same_every_time() -> None:
    first, second = check_inputs.own_pictures(3), check_inputs.own_pictures(3)
    assert [a.tobytes() for a in first] == [b.tobytes() for b in second]
    assert len({a.tobytes() for a in first}) == 3


def test_warnings_of_compilers_stay_inside(encoder: Encoder) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convert(encoder.towers.programs()["text"], "text")
