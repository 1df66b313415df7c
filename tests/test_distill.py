"""A small tower learns from a large one: whole runs on toys, and the folder that comes out."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import nunbit
from clip_models import make_towers
from contrastive_toys import make_pairs
from nunbit.cli import nunbit as command_line
from nunbit.distill.config import DistillConfig, PictureConfig
from nunbit.distill.lessons import Lessons
from nunbit.distill.measures import picture_cost
from nunbit.distill.run import DistillResult, default_labels, fit_projection, load_config, run_distillation
from nunbit.distill.start import ridge_regression, start_tower, student_preprocessing
from nunbit.distill.views import WHOLE, StudentPictures, draw_view
from nunbit.distilled.config import LiteTower, VitTower
from nunbit.distilled.encoder import fingerprint, read_config_file
from nunbit.distilled.tower import LiteEncoder
from nunbit.encode import Encoder
from nunbit.errors import ConfigError, ModelNotFound, TrainingError, UsageError, WeightsError
from nunbit.images import open_image
from nunbit.preprocessing import FlexiblePreprocessing
from nunbit.recognition import recognize
from nunbit.starter.model import PREPROCESSING
from nunbit.starter.packages import LITE0_WEIGHTS, PICTURE_WEIGHTS
from nunbit.starter.picture_tower import LITE0, load_efficientnet_lite
from watching import Watching

SETTINGS: dict[str, Any] = {
    "labels": ["red circle", "blue square", "green cross"],
    "tower": {
        "kind": "vit",
        "image_size": 16,
        "patch_size": 8,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    },
    "pictures.batch_size": 8,
    "pictures.held_out": 6,
    "pictures.views": 2,
    "pictures.augmentation": {"brightness": 0.2},
    "training": {
        "steps": 6,
        "learning_rate": 1e-3,
        "warmup_steps": 2,
        "precision": "float32",
        "device": "cpu",
        "evaluate_every": 3,
        "checkpoint_every": 2,
        "log_every": 1,
    },
}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP with random weights."""
    folder = tmp_path_factory.mktemp("teacher")
    make_towers(tmp_path_factory.mktemp("vocabulary")).save(folder)
    return folder


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """72 pictures and one that is broken."""
    return make_pairs(tmp_path_factory.mktemp("shapes")) / "그림"


def config_of(shapes: Path, teacher: Path, **changes: Any) -> DistillConfig:
    named = {name.replace("__", "."): value for name, value in changes.items()}
    return load_config([str(shapes)], settings={**SETTINGS, "teacher": str(teacher), **named})


def run(shapes: Path, teacher: Path, into: Path, *, fall_at: int | None = None, **changes: Any) -> DistillResult:
    return run_distillation(config_of(shapes, teacher, **changes), into, Watching(fall_at))


def weights(folder: Path) -> str:
    return hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def whole(shapes: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run(shapes, teacher, folder)
    return folder


@pytest.fixture(scope="module")
def student(whole: Path) -> Encoder:
    return nunbit.load(whole / "model", engine="torch")


def test_the_regression_finds_a_linear_teacher() -> None:
    features = torch.randn(200, 6, generator=torch.Generator().manual_seed(0)) * 3 + 1
    weight, bias = torch.randn(4, 6, generator=torch.Generator().manual_seed(1)), torch.arange(4.0)
    found = ridge_regression(features, features @ weight.T + bias, ridge=1e-9)
    assert torch.allclose(found[0], weight, atol=1e-4) and torch.allclose(found[1], bias, atol=1e-4)
    assert float(ridge_regression(features, features @ weight.T, ridge=1e6)[0].abs().max()) < 1e-3


def test_a_run_ends_with_an_encoder_that_has_its_teachers_words(whole: Path, teacher: Path, shapes: Path) -> None:
    student, large = (nunbit.load(folder, engine="torch") for folder in (whole / "model", teacher))
    texts = ["a red circle", "파란 사각형"]
    assert np.array_equal(student.encode_text(texts), large.encode_text(texts))
    assert (student.logit_scale, student.embedding_size) == (large.logit_scale, large.embedding_size)
    assert student.fingerprint != large.fingerprint
    (found,) = recognize(student, [shapes / "0.png"], ["red", "blue"])
    assert sum(one.probability for one in found.predictions) == pytest.approx(1)


def test_the_folder_tells_what_happened(whole: Path) -> None:
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 7))
    assert [row["step"] for row in rows if "validation/cosine" in row] == [3, 6]
    assert {"feature_loss", "similarity_loss", "label_loss"} <= rows[0].keys()
    ledger = [json.loads(line) for line in (whole / "ledger.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [Path(row["path"]).name for row in ledger] == ["broken.png"]
    assert json.loads((whole / "config.json").read_text())["versions"]["torch"] == torch.__version__
    card = (whole / "model" / "README.md").read_text()
    assert "GMACs" in card and "held-out pictures" in card and "seed: 0" in card
    assert "feature" in (whole / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("step", [1, 3, 6])
def test_a_run_that_fell_over_ends_as_one_that_did_not(
    step: int, whole: Path, shapes: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(shapes, teacher, tmp_path / "run", fall_at=step)
    monkeypatch.setattr("nunbit.distill.lessons.decode", None)  # the teacher is not asked again
    run(shapes, teacher, tmp_path / "run")
    assert weights(tmp_path / "run") == weights(whole)


def test_memory_for_pictures_changes_nothing(whole: Path, shapes: Path, teacher: Path, tmp_path: Path) -> None:
    run(shapes, teacher, tmp_path / "run", pictures__cache_mb=0)
    assert weights(tmp_path / "run") == weights(whole)


def test_another_configuration_and_other_pictures_are_refused(shapes: Path, teacher: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(shapes, tmp_path / "mine")
    with pytest.raises(KeyboardInterrupt):
        run(mine, teacher, tmp_path / "run", fall_at=1)
    with pytest.raises(UsageError, match=r"losses\.feature was 1\.0, is 2\.0"):
        run(mine, teacher, tmp_path / "run", losses__feature=2.0)
    (mine / "0.png").unlink()
    with pytest.raises(UsageError, match="other data"):
        run(mine, teacher, tmp_path / "run")


def test_the_student_comes_nearer(shapes: Path, teacher: Path, tmp_path: Path) -> None:
    changes = {"training__steps": 60, "training__checkpoint_every": 1000, "training__evaluate_every": 0}
    watching = Watching()
    result = run_distillation(config_of(shapes, teacher, **changes), tmp_path / "run", watching)
    assert watching.losses[-1] < 0.5 * watching.losses[0]
    assert result.comparison.cosine > 0.8


def test_teacher_and_student_see_the_same_view(shapes: Path, teacher: Path, tmp_path: Path) -> None:
    """The teacher's row of a view is that of the very part that the student is shown."""
    files = [shapes / f"{number}.png" for number in range(12)]
    config = PictureConfig(paths=("x",), views=3, held_out=6, batch_size=5)
    large = nunbit.load(teacher, engine="torch")
    lessons = Lessons(files, config, tmp_path, seed=4, embedding_size=large.embedding_size)
    lessons.ask(large, lambda _: None)
    assert lessons.numbers(held_out=True) == [0, 6]
    preprocessing = replace(large.preprocessing, image_size=32)
    pictures = StudentPictures(files, preprocessing, config, seed=4)
    batch = next(lessons.batches(7, pictures))
    views = {(n, v): draw_view(config, seed=4, picture=n, view=v) for n in range(12) for v in range(3)}
    seen = {key: view.of(open_image(files[key[0]])[0]) for key, view in views.items()}
    for image, row in zip(batch.images, batch.rows, strict=True):
        (key,) = (key for key in seen if np.array_equal(np.asarray(preprocessing.square(seen[key])), image.numpy()))
        assert key[0] not in (0, 6)
        assert np.allclose(large.encode_image([seen[key]])[0], row.numpy(), atol=1e-5)


def test_views_lie_within_the_picture() -> None:
    config = PictureConfig(paths=("x",), smallest_view=0.3, stretch=2.0)
    assert draw_view(config, seed=0, picture=3, view=0) == WHOLE
    views = [draw_view(config, seed=0, picture=3, view=number) for number in range(1, 200)]
    assert all(0 <= v.left < v.right <= 1 and 0 <= v.top < v.bottom <= 1 for v in views)
    assert 60 < sum(view.mirrored for view in views) < 140


def test_an_epoch_shows_every_picture_once(shapes: Path, teacher: Path, tmp_path: Path) -> None:
    config = PictureConfig(paths=("x",), views=2, held_out=6)
    large = nunbit.load(teacher, engine="torch")
    lessons = Lessons(
        [shapes / f"{n}.png" for n in range(12)], config, tmp_path, seed=0, embedding_size=large.embedding_size
    )
    lessons.ask(large, lambda _: None)
    stream = lessons._stream(0)
    epochs = [[next(stream) for _ in range(10)] for _ in range(2)]
    assert sorted(n for n, _ in epochs[0]) == lessons.numbers(held_out=False) == sorted(n for n, _ in epochs[1])
    assert not set(epochs[0]) & set(epochs[1])  # in another view
    assert next(lessons._stream(13)) == epochs[1][3]


def test_what_is_saved_again_has_the_same_fingerprint(student: Encoder, tmp_path: Path) -> None:
    student.save_pretrained(tmp_path / "copy")
    again = nunbit.load(tmp_path / "copy", engine="torch")
    assert again.fingerprint == student.fingerprint
    pixels = np.random.default_rng(0).normal(size=(2, 3, 16, 16)).astype(np.float32)
    assert np.array_equal(again.encode_pixels(pixels), student.encode_pixels(pixels))
    assert (tmp_path / "copy" / "README.md").is_file()


def test_another_teacher_is_refused_by_name(whole: Path, teacher: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole / "model", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["teacher"]["model"] = "starter"
    (folder / "config.json").write_text(json.dumps(config))
    expected, now = config["teacher"]["fingerprint"], nunbit.load("starter").fingerprint
    with pytest.raises(WeightsError, match=rf"{expected[:16]}.*{now[:16]}"):
        nunbit.load(folder, engine="torch").encode_text(["cat"])
    config["teacher"]["model"] = str(tmp_path / "nowhere")
    (folder / "config.json").write_text(json.dumps(config))
    lonely = nunbit.load(folder, engine="torch")
    assert lonely.encode_pixels(np.zeros((1, 3, 16, 16), np.float32)).shape == (1, lonely.embedding_size)
    with pytest.raises(ModelNotFound, match="takes its words from its teacher"):
        lonely.encode_text(["cat"])
    with pytest.raises(ModelNotFound, match="takes its words from its teacher"):
        nunbit.load(folder, engine="openvino")
    config["teacher"]["model"] = str(folder)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="is its own teacher"):
        nunbit.load(folder, engine="openvino")
    del config["sha256"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="is damaged"):
        nunbit.load(folder, engine="torch")


def test_the_fingerprint_covers_weights_preprocessing_and_teacher(whole: Path) -> None:
    config, checksum = read_config_file(whole / "model")
    others = [
        fingerprint(config, "0" * 64),
        fingerprint(replace(config, preprocessing=replace(config.preprocessing, interpolation="bilinear")), checksum),
        fingerprint(replace(config, teacher=replace(config.teacher, fingerprint="0" * 64)), checksum),
    ]
    assert len({fingerprint(config, checksum), *others}) == 4


def test_damaged_weights_are_refused(whole: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole / "model", tmp_path / "model")
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    with pytest.raises(WeightsError, match="sha256"):
        nunbit.load(folder, engine="torch")
    with pytest.raises(UsageError, match="float32 on the cpu"):
        nunbit.load(folder, precision="bfloat16")


def test_a_compiled_student_answers_as_on_torch(whole: Path, student: Encoder, shapes: Path) -> None:
    compiled = nunbit.load(whole / "model", engine="openvino-fp32")
    assert compiled.engine.name.startswith("openvino") and compiled.fingerprint == student.fingerprint
    files = [shapes / f"{number}.png" for number in range(5)]
    assert np.allclose(compiled.encode_image(files), student.encode_image(files), atol=1e-4)
    assert np.allclose(compiled.encode_text(["a red circle"]), student.encode_text(["a red circle"]), atol=1e-4)


def test_costs_are_counted(student: Encoder, teacher: Path) -> None:
    patches, width, inner = 4, 16, 64
    products = patches * 3 * 8 * 8 * width + patches * (4 * width * width + 2 * width * inner) + 2 * patches**2 * width
    products += width * student.embedding_size
    cost = picture_cost(student)
    assert cost.gmacs * 1e9 == pytest.approx(products)
    assert cost.parameters == sum(parameter.numel() for parameter in student.model.parameters())
    large = nunbit.load(teacher, engine="torch")
    vision = sum(parameter.numel() for parameter in large.model.vision_encoder.parameters())
    assert picture_cost(large).parameters == vision


def test_lite0_starts_from_its_published_weights() -> None:
    tower = start_tower(LiteTower(image_size=64), 24)
    assert isinstance(tower.encoder, LiteEncoder)
    with torch.no_grad():
        rows = tower(torch.zeros(2, 3, 64, 64))
        features = tower.encoder.backbone.features(torch.zeros(2, 3, 64, 64))
    published = load_efficientnet_lite(LITE0_WEIGHTS.locate(), LITE0)
    assert rows.shape == (2, 24) and torch.allclose(rows.norm(dim=1), torch.ones(2))
    with torch.no_grad():
        assert torch.allclose(features, published(torch.zeros(2, 3, 64, 64))[0], atol=1e-4)


def test_a_fitted_student_is_near_its_teacher() -> None:
    tower = start_tower(LiteTower(image_size=32), 8)
    assert isinstance(tower.encoder, LiteEncoder)
    images = torch.randint(0, 256, (12, 1, 1, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    rows = torch.randn(12, 8, generator=torch.Generator().manual_seed(1))
    preprocessing = student_preprocessing(LiteTower(image_size=32), PREPROCESSING)
    images = images.expand(-1, 32, 32, -1)
    fit_projection(tower.encoder, images.split(5), rows, preprocessing)
    pixels = np.stack([preprocessing(Image.fromarray(image.numpy())) for image in images])
    with torch.no_grad():
        found = tower(torch.from_numpy(pixels))
    assert float(torch.cosine_similarity(found, rows).mean()) > 0.6


def test_lite0_refuses_other_tensors() -> None:
    with pytest.raises(WeightsError, match="holds 386 tensors, EfficientNet-Lite0 has 296"):
        load_efficientnet_lite(PICTURE_WEIGHTS.locate(), LITE0)


def test_a_student_looks_where_its_teacher_does() -> None:
    own = student_preprocessing(LiteTower(image_size=96), PREPROCESSING)
    assert (own.image_size, own.resize, own.mean) == (96, "squash", PREPROCESSING.mean)
    flexible = FlexiblePreprocessing(16, 256, (0.5,) * 3, (0.25,) * 3, "bilinear")
    with pytest.raises(ConfigError, match="NaFlex"):
        student_preprocessing(VitTower(), flexible)


def test_default_labels_are_words() -> None:
    labels = default_labels()
    assert len(labels) == len(set(labels)) > 400 and all(word.strip() == word != "" for word in labels)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"losses": {"featur": 1.0}}, "did you mean 'feature'"),
        ({"losses": {"feature": 0.0, "similarity": 0.0, "labels": 0.0}}, "at least one above 0"),
        ({"pictures__views": 0}, "views"),
        ({"tower": {"kind": "vgg"}}, "efficientnet-lite0"),
        ({"labels": ["cat"]}, "there is one"),
    ],
)
def test_what_cannot_be_meant_is_told(changes: dict[str, Any], message: str, shapes: Path, teacher: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(shapes, teacher, **changes)
    assert message in str(caught.value)


def test_too_few_pictures_are_told(shapes: Path, teacher: Path, tmp_path: Path) -> None:
    shutil.copy(shapes / "0.png", tmp_path)
    with pytest.raises(TrainingError, match="0 pictures teach and 1 are held out"):
        run(tmp_path, teacher, tmp_path / "run")
    with pytest.raises(UsageError, match="no picture found"):
        run(tmp_path / "run", teacher, tmp_path / "other")


def test_the_command_line(shapes: Path, teacher: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        json.dumps({"tower": SETTINGS["tower"], "pictures": {"held_out": 6, "batch_size": 8, "views": 1}})
    )
    arguments = ["distill", str(shapes), "--teacher", str(teacher), "--into", str(tmp_path / "run"), "--config"]
    arguments += [str(recipe), "--labels", "red, blue", "--json", "--set"]
    result = CliRunner().invoke(command_line, [*arguments, "training.steps=2"])
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert Path(answer["model"]).is_dir() and answer["student_gmacs"] < answer["teacher_gmacs"]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["labels"] == ["red", "blue"]
    result = CliRunner().invoke(command_line, [*arguments, "training.stepz=2"])
    assert result.exit_code == 2
    assert "did you mean 'steps'?" in result.stderr
