"""Plans: what a model will be, said before it is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from nunbit.cli import nunbit as cli
from nunbit.config import from_plain, to_plain
from nunbit.errors import ConfigError, UsageError
from nunbit.language_model import make_language_model
from nunbit.vlm.assembly import list_presets, read_preset
from nunbit.vlm.config import VlmConfig
from nunbit.vlm.model import VisionLanguageModel
from nunbit.vlm.plan import Plan, PlanSample, make_plan, measure_speed, render_plan
from nunbit.vlm.stages import set_stage
from tiny_vlm import make_vlm


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["vlm", "plan", *arguments])


def plan_of(name: str, **sample: int) -> Plan:
    return make_plan(read_preset(name, tiny=True), PlanSample(**sample))


@pytest.mark.parametrize("name", list_presets())
def test_a_plan_says_what_the_model_is(name: str) -> None:
    config = read_preset(name, tiny=True)
    plan = make_plan(config, PlanSample(70, 50, 16))
    model = VisionLanguageModel(config, make_language_model(config.language_model))
    for part, count in plan.parameters.items():
        assert count == sum(parameter.numel() for parameter in getattr(model, part).parameters())
    shapes = {joint.where: joint.shape for joint in plan.joints}
    features = model.image_features(torch.zeros(1, *shapes["picture"]))
    assert features.shape[1:] == shapes["eye"]
    assert shapes["projector"] == (model.tokens_per_picture, model.language_model.hidden_size)
    assert shapes["with words"][0] == 16 + plan.looks * plan.tokens_per_look
    assert [stage.name for stage in plan.stages] == (["align", "finetune"] if config.align else ["finetune"])
    for stage in plan.stages:
        other = VisionLanguageModel(config, make_language_model(config.language_model))
        set_stage(other, config.stage(stage.name))
        learned = sum(parameter.numel() for parameter in other.parameters() if parameter.requires_grad)
        assert stage.learned == learned
        assert stage.memory == 16 * learned + 4 * stage.frozen
        assert stage.memory_bfloat16 == 16 * learned + 2 * stage.frozen
        assert stage.seconds == stage.flops / plan.flops_per_second


def test_the_largest_is_planned_without_memory() -> None:
    plan = make_plan(read_preset("pali-x"))
    assert sum(plan.parameters.values()) > 50e9
    assert plan.stages[-1].memory > 700 * 2**30
    assert plan.joints[-1].shape == (128, 250112)


def test_operations_are_counted() -> None:
    """There and back of a linear map are three products; twice the words are about twice the work."""
    plan = make_plan(read_preset("nanovlm"), PlanSample(text_tokens=100))
    words = plan.parameters["language_model"] * (100 + plan.tokens_per_look)
    eye = plan.parameters["eye"] * 196
    assert plan.stages[0].flops == pytest.approx(6 * (words + eye), rel=0.05)
    align, finetune = make_plan(read_preset("llava-1.5", tiny=True)).stages
    assert align.flops < finetune.flops
    few, many = (plan_of("nanovlm", text_tokens=count).stages[0].flops for count in (900, 2000))
    assert many > 2 * few


def test_large_pictures_are_looked_at_more_often() -> None:
    plan = make_plan(read_preset("smolvlm"), PlanSample(640, 480))
    assert (plan.looks, plan.tokens_per_look) == (13, 64)
    assert make_plan(read_preset("nanovlm"), PlanSample(6400, 480)).looks == 1


def test_the_machine_is_measured() -> None:
    assert 1e8 < measure_speed(0.01) < 1e14


def test_the_lines_say_it() -> None:
    plan = plan_of("llava-1.5", width=70, height=50, text_tokens=16)
    lines = render_plan(plan, "tiny")
    text = "\n".join(lines)
    assert lines[0] == f"tiny: {sum(plan.parameters.values()):,} parameters"
    assert "  with words      32 x 24" in lines
    assert "a sample: a picture of 70 x 50 pixels, one look, 16 tokens; 16 tokens of words" in lines
    assert f"align: {plan.stages[0].learned:,} parameters learn" in text
    assert "times are estimates" in lines[-1]


def test_the_page_shows_what_is_printed() -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "vlm.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```console\n\$ nunbit vlm plan (\S+)\n(.*?)^```$", page, re.M | re.S)
    printed = run(block[0]).output
    assert _without_times(block[1]) == _without_times(printed)


def _without_times(text: str) -> list[str]:
    return [re.sub(r"about .*? on this|\(.* here\)", "", line) for line in text.splitlines()]


def test_the_command_prints_text_and_json() -> None:
    shown = run("smolvlm", "--tiny", "--picture", "64x64")
    assert shown.exit_code == 0
    assert "5 looks, 20 tokens" in shown.output
    result = run("smolvlm", "--tiny", "--picture", "64x64", "--text-tokens", "7", "--json")
    content = json.loads(result.output)
    assert (content["preset"], content["tiny"], content["looks"]) == ("smolvlm", True, 5)
    del content["preset"], content["tiny"]
    assert to_plain(from_plain(Plan, content)) == content


def test_settings_are_replaced_and_files_of_ones_own_are_read(tmp_path: Path) -> None:
    result = run("nanovlm", "--tiny", "--set", "projector.factor=4", "--json")
    assert json.loads(result.output)["tokens_per_look"] == 4
    path = tmp_path / "mine.yaml"
    path.write_text("extends: nanovlm\ntiny: {projector: {factor: 8}}\n", encoding="utf-8")
    assert json.loads(run(str(path), "--tiny", "--json").output)["tokens_per_look"] == 1
    path.write_text(json.dumps({"model": to_plain(make_vlm("llava").config)}), encoding="utf-8")
    assert from_plain(VlmConfig, to_plain(read_preset(str(path)))) == make_vlm("llava").config


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nanovml"], "there is no preset 'nanovml'"),
        (["nowhere.yaml"], "there is no nowhere.yaml"),
        (["nanovlm", "--picture", "big"], "--picture is 'big'"),
        (["nanovlm", "--picture", "0x9"], "a picture of at least 1 x 1"),
        (["nanovlm", "--set", "projector.factor"], "sets nothing"),
        (["nanovlm", "--tiny", "--set", "projector.fctor=2"], "there is no setting called 'fctor'"),
        (["nanovlm", "--tiny", "--set", "projector.factor=3"], "cannot be cut into squares of 3"),
        (["llava", "--tiny", "--set", "align.train=[projector.fc1]"], "no parameter is called so"),
    ],
)
def test_what_cannot_be_is_told(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2 or isinstance(result.exception, UsageError | SystemExit)
    assert message in result.output + str(result.exception)


def test_a_file_of_ones_own_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extend: nanovlm\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="no setting called 'extend'"):
        read_preset(str(path))
    path.write_text("tiny: {}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="has no model"):
        read_preset(str(path))
