"""Every engine answers as torch does or is refused by name; what was prepared is found again without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nunbit
from clip_models import make_towers, pictures
from nunbit.caches import VARIABLE as CACHE_VARIABLE
from nunbit.encode import Encoder
from nunbit.engine import check_inputs, opening, preparing
from nunbit.engine.machine import Machine, this_machine
from nunbit.engine.names import COSINE_FLOOR, ENGINES, requested_engine
from nunbit.engine.openvino_models import CompiledModel
from nunbit.engine.record import Check, Record, TowerRecord, engine_folder, read_record, refuse
from nunbit.errors import EngineRefused, NunbitWarning, UsageError, WeightsError
from nunbit.golden import compare_golden
from nunbit.images import open_image
from nunbit.loading import locate, model_source
from nunbit.onnx_export import export_onnx
from nunbit.preprocessing import Preprocessing
from own_process import ALONE, passes_alone
from test_onnx_export import make_family

TEXTS = ["cat", "a photo of a cat", "창가에 앉은 고양이 한 마리", "🐈 on a 🛋️", "word " * 300]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("engines")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(folder))
        yield folder


@pytest.fixture(scope="module")
def clip_folder(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    make_family("clip", folder)
    return folder


@pytest.fixture(scope="module")
def wide_folder(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide enough for rounding errors to cancel out, as they do in models of real size."""
    folder = tmp_path_factory.mktemp("vocabulary")
    towers = make_towers(folder, hidden_size=256, intermediate_size=512)
    towers.save(saved := tmp_path_factory.mktemp("wide"))
    return saved


@pytest.fixture(scope="module")
def siglip_folder(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("siglip")
    make_family("siglip", folder)
    return folder


def cosines(rows: Any, expected: Any) -> Any:
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    return np.einsum("nd,nd->n", rows, expected)


def record_of(encoder: Encoder) -> Record:
    record = read_record(encoder.fingerprint, this_machine())
    assert record is not None
    return record


def runs_bf16() -> bool:
    return this_machine().has_bf16


@pytest.mark.parametrize(
    ("family", "engine"),
    [
        *[(f"{kind}_folder", f"openvino-{precision}") for kind in ("clip", "siglip") for precision in ("fp32", "bf16")],
        ("wide_folder", "openvino-int8"),
        ("clip_folder", "onnxruntime"),
        ("siglip_folder", "onnxruntime"),
    ],
)
def test_an_engine_answers_as_torch(family: str, engine: str, request: pytest.FixtureRequest) -> None:
    if engine == "openvino-bf16" and not runs_bf16():
        pytest.skip("this processor has no bfloat16 products")
    if engine == "openvino-bf16" and ALONE not in os.environ:
        return passes_alone(request.node.nodeid)
    folder = request.getfixturevalue(family)
    reference, encoder = nunbit.load(folder, engine="torch"), nunbit.load(folder, engine=engine)
    floor = COSINE_FLOOR["int8" if "int8" in engine else "bf16" if "bf16" in engine else "fp32"]
    for count in (1, 3, 9):  # of 9, more than one batch
        images = pictures(count)
        assert cosines(encoder.encode_image(images), reference.encode_image(images)).mean() >= floor
    assert cosines(encoder.encode_text(TEXTS), reference.encode_text(TEXTS)).mean() >= COSINE_FLOOR["bf16"]
    assert engine.split("-")[0] in encoder.engine.name
    assert (encoder.fingerprint, encoder.logit_scale, encoder.logit_bias, encoder.preprocessing) == (
        reference.fingerprint,
        reference.logit_scale,
        reference.logit_bias,
        reference.preprocessing,
    )


def test_the_starter_in_openvino_answers_as_torch(cache: Path, starter: Encoder) -> None:
    encoder = nunbit.load("starter", engine="openvino-fp32")
    images = pictures(5, (300, 200))
    np.testing.assert_allclose(encoder.encode_image(images), starter.encode_image(images), atol=1e-4)
    np.testing.assert_array_equal(encoder.encode_text(["고양이", "cat"]), starter.encode_text(["고양이", "cat"]))


def test_what_differs_is_refused_by_name_and_auto_takes_another(cache: Path) -> None:
    """EfficientNet does not bear 8 bits: the gate must notice."""
    with pytest.raises(EngineRefused, match=r"openvino-int8 is refused for starter: cosine 0\.9\d+ .* at least 0.999"):
        nunbit.load("starter", engine="openvino-int8")
    assert "int8" not in nunbit.load("starter", engine="auto").engine.name


def test_texts_of_like_length_go_together_only_where_padding_is_no_part_of_the_answer(
    clip_folder: Path, siglip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[int, ...]] = []
    run = CompiledModel.__call__

    def noting(self: CompiledModel, inputs: Any) -> Any:
        shapes.append(inputs.shape)
        return run(self, inputs)

    monkeypatch.setattr(CompiledModel, "__call__", noting)
    nunbit.load(clip_folder, engine="openvino").encode_text(["a", "b c d e f g"])
    assert shapes.pop()[1] < nunbit.load(clip_folder, engine="torch").tokenizer.config.context_length
    siglip = nunbit.load(siglip_folder, engine="openvino")
    siglip.encode_text(["a"])
    assert siglip.tokenizer is not None
    assert shapes.pop()[1] == siglip.tokenizer.config.context_length


CHILD = """
import json, sys
import nunbit
from clip_models_free import picture
encoder = nunbit.load(sys.argv[1], engine=sys.argv[2])
rows = [encoder.encode_image([picture()]).tolist(), encoder.encode_text(["a cat", "고양이"]).tolist()]
telemetry = [name for name in sys.modules if name.startswith("openvino_telemetry.")]
print(json.dumps([rows, "torch" in sys.modules, telemetry]))
"""
PICTURE = """
from PIL import Image
def picture():
    return Image.linear_gradient("L").resize((90, 60)).convert("RGB")
"""


# Not in bfloat16: where OpenVINO then gives no numbers, as it does now and then on AMX, torch answers.
@pytest.mark.parametrize("engine", ["openvino-fp32", "onnxruntime"])
def test_a_prepared_engine_needs_no_torch_and_reports_to_nobody(clip_folder: Path, engine: str, tmp_path: Path) -> None:
    nunbit.load(clip_folder, engine=engine)  # prepares it
    (tmp_path / "clip_models_free.py").write_text(PICTURE)
    answers = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", CHILD, str(clip_folder), engine],
            env=os.environ | {"PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        rows, torch_loaded, telemetry = json.loads(done.stdout.splitlines()[-1])
        assert not torch_loaded
        assert telemetry == []
        answers.append(rows)
    assert answers[0] == answers[1]


def test_another_file_in_the_folder_is_another_model(clip_folder: Path, tmp_path: Path) -> None:
    # In float32: in bfloat16 OpenVINO now and then gives no numbers on some processors, and torch, which is asked then,
    # finds the files of ``before`` changed.
    folder, engine = tmp_path / "model", "openvino-fp32"
    nunbit.load(clip_folder, engine="torch").save_pretrained(folder)
    before = nunbit.load(folder, engine=engine)
    changed = nunbit.load(folder, engine="torch")
    changed.model.vision_encoder.projection.weight.mul_(-1)
    changed.save_pretrained(folder)
    after = nunbit.load(folder, engine=engine)
    assert after.fingerprint == changed.fingerprint != before.fingerprint
    images = pictures(2)
    assert cosines(after.encode_image(images), changed.encode_image(images)).min() > 0.999
    assert cosines(after.encode_image(images), before.encode_image(images)).max() < -0.99


def test_several_threads_get_the_answers_of_one(clip_folder: Path) -> None:
    encoder = nunbit.load(clip_folder, engine="openvino-fp32")
    rng = np.random.default_rng(0)
    size = encoder.preprocessing.image_size
    batches = [rng.standard_normal((count, 3, size, size), np.float32) for count in (1, 2, 3, 4) * 4]
    alone = [encoder.encode_pixels(batch) for batch in batches]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(encoder.encode_pixels, batches))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_naflex_computes_on_torch(cache: Path, tmp_path: Path) -> None:
    make_family("naflex", tmp_path)
    assert nunbit.load(tmp_path, engine="auto").engine.name == "torch"
    with pytest.raises(EngineRefused, match="any proportions"):
        nunbit.load(tmp_path, engine="openvino")


def test_a_cache_that_cannot_be_written_costs_only_speed(
    clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    with pytest.warns(NunbitWarning, match="cannot be written"):
        assert nunbit.load(clip_folder, engine="auto").engine.name == "torch"


def test_a_damaged_record_is_made_again(clip_folder: Path) -> None:
    encoder = nunbit.load(clip_folder, engine="openvino")
    path = engine_folder(encoder.fingerprint, this_machine()) / "engine.json"
    for content in ("{", "[]", '{"format_version": 1}'):
        path.write_text(content)
        assert nunbit.load(clip_folder, engine="openvino").fingerprint == encoder.fingerprint
        assert json.loads(path.read_text())["fingerprint"] == encoder.fingerprint


def test_a_record_of_another_machine_is_not_used(clip_folder: Path) -> None:
    record = record_of(nunbit.load(clip_folder, engine="openvino"))
    other = Machine("another processor", ("AVX2",), 8, gpu=False)
    assert read_record(record.fingerprint, other) is None


def test_a_compiled_encoder_has_no_module_but_can_be_saved(clip_folder: Path, tmp_path: Path) -> None:
    encoder = nunbit.load(clip_folder, engine="openvino")
    with pytest.raises(UsageError, match='engine="torch"'):
        _ = encoder.model
    encoder.save_pretrained(tmp_path / "saved")
    saved = nunbit.load(tmp_path / "saved", engine="torch")
    assert saved.fingerprint == encoder.fingerprint
    compare_golden(saved, tmp_path / "saved")  # recorded in float32, whatever the engine
    with pytest.raises(UsageError, match='engine="torch"'):
        export_onnx(encoder, tmp_path / "onnx")


def test_a_precision_and_a_device_are_for_torch(clip_folder: Path) -> None:
    assert nunbit.load(clip_folder, precision="bfloat16", engine="auto").engine.name == "torch"
    with pytest.raises(UsageError, match='engine="torch" takes both'):
        nunbit.load(clip_folder, precision="bfloat16", engine="openvino")


def test_engines_are_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="did you mean 'openvino-int8'"):
        requested_engine("openvino-int")
    monkeypatch.setenv("NUNBIT_ENGINE", "openvino")
    assert requested_engine(None) == "openvino"
    monkeypatch.delenv("NUNBIT_ENGINE")
    assert requested_engine(None) == ENGINES[0] == "auto"


def make_record(torch_rate: float, *checks: Check) -> Record:
    tower = TowerRecord(torch_rate, checks)
    return Record(1, "", "", "f" * 64, 4, 1.0, None, {}, None, "", tower, None, "")


def choose(record: Record, **how: Any) -> Any:
    return opening.choose(record, how.get("wanted"), or_torch=how.get("or_torch", True))


def test_the_quickest_that_agrees_is_taken_and_torch_where_nothing_is_quicker() -> None:
    fp32, bf16 = Check("fp32", 1, 1, 20, ""), Check("bf16", 1, 1, 30, "")
    int8 = Check("int8", 0.9, 0.8, 90, "cosine 0.9")
    assert choose(make_record(10, fp32, bf16, int8)).image == "bf16"
    assert choose(make_record(29, fp32, bf16, int8)).image is None
    assert choose(make_record(29, fp32, bf16, int8), or_torch=False).image == "bf16"
    assert choose(make_record(10, fp32, bf16, int8), wanted="int8").image is None
    assert choose(make_record(10, fp32, bf16, int8), wanted="fp32").image == "fp32"


def test_a_text_tower_that_is_refused_is_left_to_torch_though_its_precision_was_asked_for() -> None:
    record = make_record(10, Check("fp32", 1, 1, 20, ""))
    refused = TowerRecord(10, (Check("fp32", 0.5, 0.1, 99, "cosine 0.5"),))
    assert choose(replace(record, text=refused), wanted="fp32").text is None
    assert choose(replace(record, text=record.image), wanted="fp32").text == "fp32"


def test_a_slower_precision_is_not_taken_though_it_is_there() -> None:
    """As bfloat16 and int8 are on a processor without products of their own for them."""
    found = choose(
        make_record(10, Check("fp32", 1, 1, 20, ""), Check("bf16", 1, 1, 5, ""), Check("int8", 1, 1, 15, ""))
    )
    assert found.image == "fp32"


def test_a_processor_without_bfloat16_is_not_asked_for_it(clip_folder: Path) -> None:
    trial = preparing._Trial(Machine("old", ("AVX2",), 2, gpu=False), [], [np.zeros((1, 4), np.float32)])
    assert "no bfloat16" in trial.check(None, "bf16").refused


def test_what_was_refused_for_its_accuracy_stays_refused(clip_folder: Path) -> None:
    record = record_of(nunbit.load(clip_folder, engine="openvino"))
    refuse(record.fingerprint, {"fp32": "top-1 is 3 points lower"}, this_machine())
    with pytest.raises(EngineRefused, match="3 points lower"):
        nunbit.load(clip_folder, engine="openvino-fp32")
    refuse(record.fingerprint, {"fp32": ""}, this_machine())


def test_the_users_pictures_calibrate(clip_folder: Path, album: Path, photos: Path) -> None:
    preprocessing = nunbit.load(clip_folder, engine="torch").preprocessing
    assert isinstance(preprocessing, Preprocessing)
    with pytest.raises(UsageError, match="calibration takes at least 8"):
        check_inputs.pixel_batches(preprocessing, [album / "missing"])
    batches, checks = check_inputs.pixel_batches(preprocessing, [photos])
    own, _ = check_inputs.pixel_batches(preprocessing, None)
    assert not np.array_equal(batches[0], own[0])
    everything = {picture.tobytes() for picture in [*np.concatenate(batches), *checks]}
    assert preprocessing(open_image(photos / "chelsea.png")[0]).tobytes() in everything


def test_one_process_prepares_and_the_others_wait_for_it(
    clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    script = f"import nunbit; print(nunbit.load({str(clip_folder)!r}, engine='openvino').encode_text(['a']).shape)"
    children = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) for _ in range(3)]
    shapes = {child.communicate()[0] for child in children}
    assert len(shapes) == 1 and shapes.pop().startswith(b"(1, ")
    assert len([folder for folder in (tmp_path / "engines").glob("*-*") if folder.is_dir()]) == 1


def test_a_model_that_is_changed_while_it_is_prepared_is_another_one(
    clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    nunbit.load(clip_folder, engine="torch").save_pretrained(tmp_path / "model")
    prepare = preparing.prepare

    def slow(*arguments: Any) -> Record:
        record = prepare(*arguments)
        changed = nunbit.load(clip_folder, engine="torch")
        changed.model.logit_scale.mul_(2)
        changed.save_pretrained(tmp_path / "model")
        return record

    with monkeypatch.context() as patch:
        patch.setattr(opening, "prepare", slow)
        before = nunbit.load(tmp_path / "model", engine="openvino")
    with pytest.raises(WeightsError, match="changed after it was loaded"):
        before.save_pretrained(tmp_path / "copy")
    assert nunbit.load(tmp_path / "model", engine="openvino").fingerprint != before.fingerprint


def test_starter_accuracy_on_clothing_is_that_of_torch(
    cache: Path, starter: Encoder, shared: Path, tmp_path: Path
) -> None:
    from nunbit.agreement import compare_accuracy, engine_record

    for folder in sorted((shared / "data/clothing/test").iterdir()):
        (tmp_path / folder.name).mkdir()
        for path in sorted(folder.iterdir())[:4]:
            (tmp_path / folder.name / path.name).symlink_to(path)
    source = model_source(locate("starter"), "starter")
    record, accuracies = compare_accuracy(source, engine_record(source), tmp_path, templates="photo")
    assert [found.engine for found in accuracies] == ["torch", "openvino-fp32"]
    assert abs(accuracies[0].top1 - accuracies[1].top1) <= 0.5
    assert record.image is not None
    assert not record.image.checks[0].refused


def test_an_engine_that_names_pictures_otherwise_is_refused(
    wide_folder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nunbit import agreement

    source = model_source(locate(str(wide_folder)), "clip")
    record = agreement.engine_record(source, again=True)

    def fake(encoder: Encoder, *args: Any, **options: Any) -> Any:
        top1 = 50.0 if "int8" not in encoder.engine.name else 51.0
        return type("Report", (), {"top1": top1, "seconds": 1.0})()

    monkeypatch.setattr(agreement, "zero_shot", fake)
    record, _ = agreement.compare_accuracy(source, record, tmp_path)
    assert record.image is not None
    int8 = record.image.find("int8")
    assert int8 is not None
    assert "51.0, torch's is 50.0" in int8.refused
    with pytest.raises(EngineRefused, match="51.0"):
        nunbit.load(wide_folder, engine="openvino-int8")
    agreement.engine_record(source, again=True)  # for the other tests
