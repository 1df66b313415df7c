"""Inspection: patches, bank, line, regions, files and the command line, against plain implementations and drawings."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image, ImageDraw

from nunbit.cli import nunbit as cli
from nunbit.encode import Encoder, EncoderInfo
from nunbit.engine.towers import CompiledEncoder
from nunbit.errors import EncoderMismatch, ImageError, StoreError, StoreNotFound, UsageError
from nunbit.head import Head, save_head
from nunbit.inspection import (
    FitOptions,
    Inspection,
    Inspector,
    Look,
    MemoryBank,
    cut_regions,
    draw_inspection,
    find_regions,
    greedy_coreset,
    make_bank,
    memory_bank,
    name_kinds,
    patch_grid,
    set_threshold,
)
from nunbit.inspection.regions import heat_map
from nunbit.inspection.threshold import Threshold
from nunbit.preprocessing import Preprocessing
from nunbit.types import Rejected
from nunbit.vision_encoder import VisionTransformer, VitConfig
from nunbit.vision_encoder.patch_maps import join_maps, patch_map, patch_size_of

RNG = np.random.default_rng
CELL = 4
VIT = {
    "image_size": 16,
    "patch_size": 4,
    "hidden_size": 8,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "class_token": True,
    "patch_bias": True,
    "pre_norm": False,
    "pooling": "class_token",
    "projection_size": None,
}


class ColorTowers:
    """Sees the mean color of each cell, and embeds the mean of all of them."""

    model = tokenizer = logit_bias = None
    logit_scale = 100.0
    patch_size = CELL

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint

    def patch_features(self, pixel_values: np.ndarray, *, layers: Sequence[int] | None = None) -> np.ndarray:
        batch, _, height, width = pixel_values.shape
        cells = pixel_values.reshape(batch, 3, height // CELL, CELL, width // CELL, CELL)
        return cells.mean((3, 5)).transpose(0, 2, 3, 1)

    def encode_pixels(self, pixel_values: np.ndarray) -> np.ndarray:
        colors = pixel_values.mean((2, 3)) + 2
        return (colors / np.linalg.norm(colors, axis=1, keepdims=True)).astype(np.float32)


def color_encoder(fingerprint: str = "c" * 64) -> Encoder:
    preprocessing = Preprocessing(18, 0.9, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "crop", "bilinear")
    return Encoder(ColorTowers(fingerprint), EncoderInfo("colors", 3, preprocessing))  # type: ignore[arg-type]


def noise(seed: int, size: tuple[int, int] = (40, 24)) -> Image.Image:
    pixels = RNG(seed).integers(100, 140, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def part(seed: int, flaw: tuple[int, int, int, int] | None = None) -> Image.Image:
    """A plate with four holes and a groove, never quite in the same place; maybe scratched."""
    rng = RNG(seed)
    image = Image.new("RGB", (256, 240), (150, 150, 155))
    pen = ImageDraw.Draw(image)
    for x, y in ((50, 50), (200, 50), (50, 190), (200, 190)):
        x, y = x + int(rng.integers(-3, 4)), y + int(rng.integers(-3, 4))
        pen.ellipse((x - 20, y - 20, x + 20, y + 20), fill=(40, 40, 45))
    y = 120 + int(rng.integers(-3, 4))
    pen.rectangle((0, y - 6, 256, y + 6), fill=(90, 90, 95))
    if flaw is not None:
        pen.line(flaw, fill=(235, 235, 230), width=4)
    grain = rng.normal(0, 3, (240, 256, 1))
    return Image.fromarray(np.uint8(np.clip(np.asarray(image) + grain, 0, 255)))


def test_the_coreset_is_that_of_a_plain_implementation() -> None:
    points = RNG(0).normal(size=(80, 5)).astype(np.float32)
    chosen = list(greedy_coreset(points, 12, seed=3))
    plain = chosen[:1]
    while len(plain) < 12:
        gaps = np.linalg.norm(points[:, None] - points[plain][None], axis=2).min(1)
        plain.append(int(gaps.argmax()))
    assert chosen == plain


def test_the_coreset_keeps_rare_points_through_the_projection_and_stops_at_copies() -> None:
    points = np.concatenate([RNG(1).normal(0, 0.01, (500, 300)), RNG(2).normal(0, 1, (5, 300))]).astype(np.float32)
    assert set(range(500, 505)) <= set(greedy_coreset(points, 6).tolist())
    copies = np.tile(np.float32([[1, 2], [3, 4], [5, 6]]), (10, 1))
    assert len(make_bank(copies, 20).rows) == 3
    with pytest.raises(UsageError, match="at least one"):
        greedy_coreset(copies, 0)


def test_distances_are_those_of_a_plain_implementation(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, asked = (RNG(seed).normal(50, 1, (count, 6)).astype(np.float32) for seed, count in ((0, 30), (1, 101)))
    asked[7] = rows[11]
    plain = np.linalg.norm(asked[:, None] - rows[None], axis=2).min(1)
    monkeypatch.setattr(memory_bank, "_AT_ONCE", 30 * 8)  # pieces of eight
    found = MemoryBank(rows).distances(asked)
    np.testing.assert_allclose(found, plain, rtol=1e-5)
    assert found[7] == 0
    with pytest.raises(UsageError, match=r"expected \(P, 6\)"):
        MemoryBank(rows).distances(asked[:, :5])


@pytest.mark.parametrize("size", [(40, 24), (37, 51), (16, 16), (5, 3), (90, 17)])
def test_tiles_cover_each_cell_once_and_in_its_place(size: tuple[int, int]) -> None:
    picture = noise(0, size)
    grid = patch_grid(color_encoder(), picture)
    width, height = size
    rows, columns = -(-height // CELL), -(-width // CELL)
    pixels = np.pad(np.asarray(picture), ((0, rows * CELL - height), (0, columns * CELL - width), (0, 0)), "symmetric")
    plain = (pixels.reshape(rows, CELL, columns, CELL, 3).mean((1, 3)) / 255 - 0.5) / 0.5
    np.testing.assert_allclose(grid, plain, atol=1e-5)


def test_a_scale_changes_the_cells_and_not_the_size_of_the_map() -> None:
    encoder, pictures = color_encoder(), [noise(seed) for seed in range(3)]
    assert patch_grid(encoder, noise(0), Look(scale=0.5)).shape[:2] == (3, 5)
    inspector = Inspector.fit(encoder, pictures, FitOptions(scale=0.5))
    flawed = noise(9)
    flawed.paste((255, 0, 0), (24, 8, 32, 16))
    found = inspector.inspect(flawed)
    assert found.heat_map.shape == (24, 40) and found.heat_map.dtype == np.float32
    (region,) = found.regions  # a cell more where resizing has smeared it
    assert 16 <= region.left <= 24 and region.top <= 8 and (region.right, region.bottom) == (32, 16)
    with pytest.raises(UsageError, match="above 0"):
        Look(scale=0)


def test_tiles_see_what_one_look_at_all_of_it_sees(starter: Encoder) -> None:
    """Also at the edges of the picture, which a bare look takes for something odd."""
    picture = part(0).crop((0, 0, 256, 208))
    grid = patch_grid(starter, picture)
    assert grid.shape == (26, 32, 72)
    pixels = np.pad(np.asarray(picture, np.float32), ((64, 64), (64, 64), (0, 0)), "symmetric")
    whole = starter.patch_features(((pixels - 127) / 128).transpose(2, 0, 1)[None])[0, 8:-8, 8:-8]
    bare = starter.patch_features(((np.asarray(picture, np.float32) - 127) / 128).transpose(2, 0, 1)[None])[0]
    off, bare_off = (np.linalg.norm(one - whole, axis=2).max() for one in (grid, bare))
    assert off < 0.1 * bare_off


def test_the_starters_maps_are_those_behind_its_blocks(starter: Encoder) -> None:
    seen: list[torch.Tensor] = []
    tower = starter.model.picture_tower
    hooks = [tower.blocks[n].register_forward_hook(lambda *given: seen.append(given[2].clone())) for n in (3, 6)]
    pixels = RNG(0).normal(size=(2, 3, 64, 96)).astype(np.float32)
    with torch.inference_mode():
        tower(torch.from_numpy(pixels))
    for hook in hooks:
        hook.remove()
    assert [tuple(one.shape) for one in seen] == [(2, 24, 16, 24), (2, 48, 8, 12)]
    np.testing.assert_allclose(starter.patch_features(pixels), join_maps(seen, (8, 12)).numpy(), atol=1e-4)
    with pytest.raises(UsageError, match="blocks 1 to"):
        starter.patch_features(pixels, layers=[99])


def test_joined_maps_are_local_means_on_one_grid() -> None:
    one = torch.arange(16.0).reshape(1, 1, 4, 4)
    joined = join_maps([one, torch.ones(1, 2, 8, 8)], (4, 4))
    assert joined.shape == (1, 4, 4, 3)
    assert joined[0, 0, 0, 0] == torch.tensor([0.0, 1.0, 4.0, 5.0]).mean()  # a corner has three neighbors, no zeros
    assert joined[0, 1, 2, 0] == one[0, 0, 0:3, 1:4].mean()
    assert (joined[..., 1:] == 1).all()


def test_a_transformer_is_read_behind_half_of_its_blocks() -> None:
    encoder = VisionTransformer(VitConfig(**VIT)).eval()  # type: ignore[arg-type]
    pixels = torch.randn(2, 3, 16, 24)
    with torch.inference_mode():
        found = patch_map(encoder, pixels, None)
        assert found.shape == (2, 4, 6, 8)
        torch.testing.assert_close(found[:, 1, 2], encoder(pixels, layer=2)[:, 8])
        assert patch_map(encoder, pixels, [1, -1]).shape == (2, 4, 6, 16)
    flexible = VIT | {"class_token": False, "pooling": "mean", "flexible": True}
    with pytest.raises(UsageError, match="NaFlex"):
        patch_size_of(VisionTransformer(VitConfig(**flexible)))  # type: ignore[arg-type]


def test_who_has_no_patches_says_so() -> None:
    info = EncoderInfo("small", 3, color_encoder().preprocessing)
    with pytest.raises(UsageError, match="compiled") as caught:
        patch_grid(CompiledEncoder(ColorTowers("x"), info), noise(0))  # type: ignore[arg-type]
    assert 'engine="torch"' in caught.value.hint
    with pytest.raises(UsageError, match="embeddings alone"):
        patch_grid(Encoder(object(), info), noise(0))  # type: ignore[arg-type]


def test_the_line_lets_through_what_it_promises() -> None:
    def line(scores: np.ndarray, false_alarms: float) -> Threshold:
        return set_threshold([np.array([score]) for score in scores], false_alarms, 0.001)

    scores = RNG(0).permutation(19).astype(np.float32)
    assert line(scores, 0.05).value == 18
    assert line(scores, 0.05).promised == pytest.approx(0.05)
    assert line(scores, 0.2).value == 15
    few = line(scores[:4], 0.05)
    assert few.value == max(scores[:4]) and not few.is_kept and few.needed == 19
    assert few.promised == pytest.approx(0.2)
    assert "too few" in few.words() and "takes 19" in few.words()
    assert line(scores, 0.05).is_kept
    trials = RNG(1).normal(size=(4000, 31))
    above = np.mean([trial[30] > line(trial[:30], 0.1).value for trial in trials])
    assert 0.08 < above <= 0.11
    with pytest.raises(UsageError, match="false_alarms"):
        line(scores, 1.0)


def test_places_have_a_lower_line_than_parts() -> None:
    parts = [RNG(number).normal(size=(20, 20)).astype(np.float32) for number in range(20)]
    found = set_threshold(parts, 0.05, 0.01)
    assert found.value == sorted(part.max() for part in parts)[19]
    assert np.mean(np.concatenate(parts) > found.places) == pytest.approx(0.01, abs=1e-3)
    few = set_threshold(parts, 0.9, 1e-6)
    assert few.places == few.value < found.value  # never above


def test_a_good_part_has_no_region_though_places_cross_the_lower_line() -> None:
    encoder, pictures = color_encoder(), [noise(seed) for seed in range(4)]
    inspector = Inspector.fit(encoder, pictures, FitOptions(false_alarms=0.2, rows=10_000, places_above=0.2))
    assert inspector.threshold.places < inspector.threshold.value
    for seed in range(10, 16):
        found = inspector.inspect(noise(seed))
        assert bool(found.regions) == found.is_defective


def test_each_good_part_is_scored_by_a_bank_without_it() -> None:
    encoder, pictures = color_encoder(), [noise(seed) for seed in range(4)]
    inspector = Inspector.fit(encoder, pictures, FitOptions(false_alarms=0.5, rows=10_000))
    grids = [patch_grid(encoder, picture).reshape(-1, 3) for picture in pictures]
    left_out = [
        MemoryBank(np.concatenate(grids[:n] + grids[n + 1 :])).distances(grid).max() for n, grid in enumerate(grids)
    ]
    assert inspector.threshold.value == pytest.approx(sorted(left_out)[2], rel=1e-4)
    assert all(inspector.inspect(picture).score < 1e-3 for picture in pictures)


def test_regions_are_what_hangs_together() -> None:
    distances = np.zeros((6, 8), np.float32)
    distances[0, 0], distances[1, 1], distances[4, 5:8] = 2, 3, (5, 4, 7)
    first, second = find_regions(distances, 1.5, 10, (77, 60))
    assert (first.box, first.score) == ((50, 40, 77, 50), 7)
    assert (second.box, second.score) == ((0, 0, 20, 20), 3)
    assert find_regions(distances, 7, 10, (77, 60)) == ()
    heat = heat_map(distances, 10, (77, 60))
    assert heat.shape == (60, 77)
    assert np.unravel_index(heat.argmax(), heat.shape)[0] in range(40, 50)
    assert heat[45, 55] == pytest.approx(5, abs=0.3)  # the middle of a cell


def test_a_scratch_is_found_where_it_is(starter: Encoder, tmp_path: Path) -> None:
    inspector = Inspector.fit(starter, [part(seed) for seed in range(4)], FitOptions(rows=300))
    assert not inspector.threshold.is_kept
    good, bad = (inspector.inspect(part(seed, flaw)) for seed, flaw in ((50, None), (51, (100, 170, 150, 200))))
    assert bad.is_defective and bad.score > 1.5 * good.score
    top, left = np.unravel_index(bad.heat_map.argmax(), bad.heat_map.shape)
    assert 90 <= left <= 160 and 160 <= top <= 210
    worst = bad.regions[0]
    assert worst.left < 150 and worst.right > 100 and worst.top < 200 and worst.bottom > 170
    inspector.save(tmp_path / "plate")
    again = Inspector.load(tmp_path / "plate", starter).inspect(part(51, (100, 170, 150, 200)))
    np.testing.assert_array_equal(again.heat_map, bad.heat_map)
    assert (again.regions, again.threshold) == (bad.regions, bad.threshold)


def test_an_inspector_is_bound_to_its_encoder_and_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "inspector"
    with pytest.raises(StoreNotFound, match="no inspector"):
        Inspector.load(folder, color_encoder())
    Inspector.fit(color_encoder(), [noise(0), noise(1)], FitOptions(scale=2, layers=(1, 2))).save(folder)
    assert Inspector.load(folder, color_encoder()).look == Look(2, (1, 2))
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".safetensors"]
    with pytest.raises(EncoderMismatch, match=r"made with colors \(cccccccccccc\), not with colors \(dddddddddddd\)"):
        Inspector.load(folder, color_encoder("d" * 64))
    content = json.loads((folder / "inspector.json").read_text())
    (folder / "inspector.json").write_text(json.dumps(content | {"threshold": {}}))
    with pytest.raises(StoreError, match="damaged"):
        Inspector.load(folder, color_encoder())
    (folder / "inspector.safetensors").write_bytes(b"")
    with pytest.raises(StoreError, match="sha256 differs"):
        Inspector.load(folder, color_encoder())


def test_bad_input_is_told_or_set_aside(tmp_path: Path) -> None:
    encoder, rejected = color_encoder(), list[Rejected]()
    with pytest.raises(UsageError, match="1 good part, expected at least 2"):
        Inspector.fit(encoder, [noise(0)])
    with pytest.raises(UsageError, match="1 good part, expected at least 2"):
        Inspector.fit(encoder, [noise(0), noise(0)])
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"broken\.png"):
        Inspector.fit(encoder, [noise(0), broken, noise(1)])
    sizes = [noise(0), broken, noise(1, (60, 70)), noise(0), noise(2, (9, 9))]
    inspector = Inspector.fit(encoder, sizes, set_aside=rejected.append)
    assert [item.reason for item in rejected] == ["not an image", "copy"]
    assert inspector.threshold.good_parts == 3
    with pytest.raises(UsageError, match="at least one row"):
        FitOptions(rows=0)


def test_what_is_drawn_is_where_it_is_wrong() -> None:
    picture = noise(0, (64, 48))
    heat = np.full((48, 64), 0.4, np.float32)
    assert draw_inspection(picture, Inspection(0.4, 1.0, heat, ())).tobytes() == picture.tobytes()
    heat[16:24, 8:24] = 2
    found = Inspection(2.0, 1.0, heat, find_regions(heat[::8, ::8], 1.0, 8, (64, 48)))
    changed = (np.asarray(draw_inspection(picture, found)) != np.asarray(picture)).any(2)
    assert changed[16:24, 8:24].all() and changed.sum() == 8 * 16


def color_head() -> Head:
    return Head(("scratch", "dent"), np.float32([[30, 0, 0], [0, 0, 30]]), np.zeros(2, np.float32))


def test_kinds_are_named_of_what_the_region_shows() -> None:
    inspector = Inspector.fit(color_encoder(), [noise(seed) for seed in range(3)])
    flawed = noise(9, (80, 60))
    flawed.paste((255, 0, 0), (0, 8, 8, 16))
    flawed.paste((0, 0, 255), (60, 40, 80, 60))
    found = inspector.inspect(flawed)
    assert all(region.kinds == () for region in found.regions)
    assert {crop.size for crop in cut_regions(flawed, found.regions, 2)} == {(10, 12), (22, 22)}  # not beyond the edge
    named = name_kinds(inspector.encoder, color_head(), flawed, found, margin=2)
    assert {region.left: region.kinds[0].label for region in named.regions} == {0: "scratch", 60: "dent"}


def test_the_command_line_goes_all_the_way(starter: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, name, picture in (
        ("good", "1", part(1)),
        ("good", "2", part(2)),
        ("parts", "bad", part(4, (100, 170, 150, 200))),
    ):
        Path(folder).mkdir(exist_ok=True)
        picture.save(f"{folder}/{name}.png")
    Path("good/broken.jpg").write_bytes(b"\xff\xd8\xff")
    Path("parts/broken.jpg").write_bytes(b"\xff\xd8\xff")
    rows = RNG(0).normal(size=(2, 512)).astype(np.float32)
    save_head(Head(("scratch", "dent"), rows, np.zeros(2, np.float32)), "defects.head", starter, {})

    def run(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(cli, ["inspect", *arguments], standalone_mode=False)
        assert (result.return_value or 0) == code, result.output
        return result.output

    output = run("fit", "good", "--into", "plate", "--rows", "300")
    assert "2 good parts" in output and "too few" in output
    assert "broken.jpg" in output
    page, command = "--sheet sheet.html", "check parts --with plate --kinds defects.head --into heat --json --strict"
    row = json.loads(run(*f"{command} {page}".split(), code=1).splitlines()[0])
    assert set(row) == {"path", "score", "threshold", "is_defective", "regions"}
    assert row["is_defective"] and set(row["regions"][0]) == {"box", "score", "kinds"}
    with Image.open("heat/bad.png") as drawn:
        assert drawn.size == (256, 240)
    assert Path("sheet.html").read_text().count("data:image/jpeg;base64,") == 1
    assert re.search(r"bad\.png: defective, .*\n  at \d+,\d+ to \d+,\d+", run("check", "parts", "--with", "plate"))
    Path("empty").mkdir()
    for arguments, words in (
        ("fit empty --into x", "no photograph found"),
        ("fit good --into x --layers 4;7", "numbers between commas"),
        ("check parts --with nowhere", "there is no inspector"),
        ("check parts parts --with plate --into parts", "written over"),
        ("check parts/bad.png good parts/../heat/bad.png --with plate --into other", "would be one picture"),
    ):
        error = CliRunner().invoke(cli, ["--debug", "inspect", *arguments.split()], standalone_mode=False).exception
        assert words in str(error), (arguments, error)
