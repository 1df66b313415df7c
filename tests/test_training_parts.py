"""Schedule, groups, averages, checkpoints, the run's folder, the diagnosis."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from nunbit.errors import ConfigError, StoreError, UsageError
from nunbit.lora import merged_parameters
from nunbit.training.averaging import WeightAverage, interpolate
from nunbit.training.checkpoint import Checkpoint, list_checkpoints, load_checkpoint, save_checkpoint
from nunbit.training.config import TrainingConfig, rate_factor
from nunbit.training.diagnosis import Diagnosis
from nunbit.training.loop import train_mode
from nunbit.training.parameters import make_optimizers, parameter_groups
from nunbit.training.run_folder import RunFolder
from nunbit.types import Rejected


def test_the_rate_rises_in_a_line_and_falls_in_half_a_cosine() -> None:
    config = TrainingConfig(steps=110, warmup_steps=10, final_rate=0.1)
    rates = [rate_factor(step, config) for step in range(110)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == 1
    assert rates[60] == pytest.approx(0.1 + 0.9 / 2)  # half of the way
    assert rates[109] == pytest.approx(0.1 + 0.45 * (1 + math.cos(math.pi * 0.99)))
    assert rate_factor(0, TrainingConfig(warmup_steps=0)) == 1


def test_vectors_are_not_decayed_and_factors_make_groups() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 1))
    module[2].bias.requires_grad_(False)
    groups = parameter_groups(
        module, learning_rate=1.0, weight_decay=0.1, factor=lambda name: 0.5 if name.startswith("0.") else 1.0
    )
    found = {(group["lr"], group["weight_decay"]): [tuple(p.shape) for p in group["params"]] for group in groups}
    assert found == {(0.5, 0.1): [(3, 2)], (0.5, 0.0): [(3,)], (1.0, 0.0): [(3,), (3,)], (1.0, 0.1): [(1, 3)]}
    with pytest.raises(ConfigError, match="nothing is left to train"):
        parameter_groups(module.requires_grad_(False), learning_rate=1.0, weight_decay=0.1)


def test_muon_moves_matrices_of_blocks_in_orthogonal_directions() -> None:
    blocks = nn.ModuleList([nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8))])
    module = nn.ModuleDict({"blocks": blocks, "head": nn.Linear(8, 2)})
    config = TrainingConfig(optimizer="muon", learning_rate=0.1, weight_decay=0.0)
    muon, adamw = make_optimizers(module, config)
    assert [tuple(p.shape) for group in muon.param_groups for p in group["params"]] == [(8, 4)]
    assert sum(len(group["params"]) for group in adamw.param_groups) == 5
    weight = blocks[0][0].weight
    before, weight.grad = weight.detach().clone(), torch.randn(8, 4)
    muon.step()
    # Orthogonal up to what five iterations reach, and as long as a step of AdamW: 0.2 of the rate for each number.
    sizes = torch.linalg.svdvals((before - weight.detach()) / (0.1 * 0.2 * math.sqrt(8)))
    assert sizes.min() > 0.6 and sizes.max() < 1.3
    assert [type(one) for one in make_optimizers(module, TrainingConfig())] == [torch.optim.AdamW]
    with pytest.raises(ConfigError, match="whole matrices"):
        TrainingConfig(optimizer="muon", fsdp=True)


def test_the_average_is_the_formula() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    average, expected = WeightAverage(module, 0.5), 0.0
    for step in range(8):
        nn.init.constant_(module.weight, step + 1.0)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * (step + 1.0)
    with average.applied():
        assert module.weight.item() == pytest.approx(expected, rel=1e-6)
    assert module.weight.item() == 8
    with average.applied(keep=True):
        pass
    assert module.weight.item() == pytest.approx(expected, rel=1e-6)


def test_running_statistics_go_the_way_of_the_weights() -> None:
    module = nn.BatchNorm1d(2)
    start = merged_parameters(module)
    module.running_mean.fill_(4.0)
    module.num_batches_tracked.fill_(7)
    interpolate(module, start, merged_parameters(module), 0.25)
    assert module.running_mean.tolist() == [1.0, 1.0] and module.num_batches_tracked == 7


def test_between_start_and_end() -> None:
    module = nn.Linear(2, 1)
    start = {"weight": torch.zeros(1, 2)}
    interpolate(module, start, {"weight": torch.ones(1, 2)}, 0.3)
    torch.testing.assert_close(module.weight.detach(), torch.full((1, 2), 0.3))


def test_checkpoints_come_back_and_old_ones_go(tmp_path: Path) -> None:
    tensors = {"module/a": torch.randn(3), "optimizer/a/step": torch.tensor(2.0), "shared": torch.ones(2).expand(3, 2)}
    for step in (1, 12, 123):
        save_checkpoint(tmp_path, Checkpoint(step, tensors, {"x": [step]}), keep=2)
    paths = list_checkpoints(tmp_path)
    assert [path.name for path in paths] == ["step-00000012", "step-00000123"]
    found = load_checkpoint(paths[-1])
    assert found.step == 123 and found.plain == {"x": [123]}
    assert all(torch.equal(found.tensors[name], tensors[name]) for name in tensors)


def test_a_half_written_checkpoint_does_not_count(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, Checkpoint(1, {"a": torch.ones(1)}, {}), keep=2)
    (tmp_path / ".step-00000002.99").mkdir()
    (tmp_path / f".step-00000003.{os.getpid()}").mkdir()  # a container gives the same number again
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000001"]
    save_checkpoint(tmp_path, Checkpoint(3, {"a": torch.ones(1)}, {}), keep=2)
    assert not (tmp_path / ".step-00000002.99").exists()


def test_a_full_disk_is_told_and_leaves_nothing_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, Checkpoint(1, {"a": torch.ones(1)}, {}), keep=2)

    def full(*_: object) -> None:
        raise SafetensorError("No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(StoreError, match="No space left") as error:
        save_checkpoint(tmp_path, Checkpoint(2, {"a": torch.ones(1)}, {}), keep=2)
    assert "keep_checkpoints" in error.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_a_damaged_checkpoint_is_told(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, Checkpoint(1, {"a": torch.ones(100)}, {}), keep=2)
    tensors = path / "state.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-10])
    with pytest.raises(StoreError, match="cannot be read") as error:
        load_checkpoint(path)
    assert "delete that folder" in error.value.hint


def test_a_picture_is_set_aside_once_whoever_asks(tmp_path: Path) -> None:
    for _ in range(2):
        folder = RunFolder(tmp_path / "run")
        with folder.opened({"seed": 0}):
            folder.set_aside(Rejected("그림.png", "truncated", "…"))
            folder.set_aside(Rejected("그림.png", "truncated", "…"))
    lines = (tmp_path / "run" / "ledger.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["path"] for line in lines] == ["그림.png"]


def test_a_run_goes_on_from_its_own_start_only(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.check_start("a" * 64)
    folder.check_start("a" * 64)
    with pytest.raises(UsageError, match="began with another model"):
        folder.check_start("b" * 64)


def test_ledgers_of_all_processes_become_one(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with folder.opened({}):
        folder.set_aside(Rejected("a", "truncated", ""))
        for rank in (1, 2):
            RunFolder(tmp_path, rank=rank).set_aside(Rejected("그림", "missing", str(rank)))
        folder.gather_ledgers()
    lines = (tmp_path / "ledger.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["path"] for line in lines] == ["a", "그림"]
    assert not list(tmp_path.glob("ledger.*.jsonl"))


def test_batch_norms_that_learn_nothing_keep_what_they_know() -> None:
    module = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2))
    module[0].requires_grad_(False)
    train_mode(module)
    assert not module[0].training and module[1].training


def test_a_ledger_that_a_kill_cut_off_goes_on(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with folder.opened({}):
        folder.set_aside(Rejected("a", "truncated", ""))
    with (tmp_path / "ledger.jsonl").open("a") as file:
        file.write('{"path": "b", "rea')
    with folder.opened({}):
        folder.set_aside(Rejected("b", "missing", ""))
    lines = (tmp_path / "ledger.jsonl").read_text().splitlines()
    assert [json.loads(line)["path"] for line in lines] == ["a", "b"]


def problems(values: list[dict[str, float]], warmup: int = 0) -> list[str]:
    diagnosis = Diagnosis(warmup)
    return [f.problem for step, row in enumerate(values, start=1) for f in diagnosis.observe(step, row)]


def test_what_goes_wrong_is_told_once() -> None:
    healthy = [{"loss": 6 * 0.99**step, "chance_loss": 6.0, "image_similarity": 0.3} for step in range(600)]
    assert problems(healthy) == []
    assert problems([{"loss": 6.0, "chance_loss": 6.0}] * 600) == ["loss not falling"]
    assert problems([{"loss": 0.01, "chance_loss": 6.0}] * 600) == []  # learned already
    assert problems([{"loss": math.nan}] * 3) == ["not finite"]
    assert problems([{"loss": 1.0, "image_similarity": 0.99}] * 3) == ["image embeddings collapsed"]
    assert problems([{"loss": 1.0, "text_similarity": 0.99}] * 3, warmup=3) == []  # all begin near each other
    assert problems([{"loss": 1.0, "logit_scale": scale} for scale in (50.0, 100.0)]) == ["logit scale at its limit"]
    assert problems([{"loss": 1.0, "logit_scale": 100.0}] * 3) == []  # as a published model begins
    assert problems([{"loss": 1.0, "gradient_norm": math.inf}] * 3) == ["not finite"]
    assert problems([{"loss": 1.0, "duplicates": 0.5}] * 3) == ["duplicate-heavy data"]


def test_the_loss_is_judged_after_the_warm_up_only() -> None:
    rows = [{"loss": 6.0, "chance_loss": 6.0}] * 310
    assert problems(rows, warmup=200) == []
    assert problems(rows, warmup=5) == ["loss not falling"]
    # A run that goes on at step 5,000 has seen nothing yet.
    diagnosis = Diagnosis(5)
    found = [finding for step in range(5000, 5299) for finding in diagnosis.observe(step, rows[0])]
    assert found == []
