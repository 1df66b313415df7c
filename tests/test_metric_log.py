"""The metric log: what a killed run leaves, what is not finite, event files for TensorBoard."""

from __future__ import annotations

import json
import math
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nunbit.errors import StoreError, UsageError
from nunbit.training.metrics import MetricLog

SAME_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)


def test_a_line_can_be_read_as_soon_as_it_is_written(tmp_path: Path) -> None:
    log = MetricLog(tmp_path / "run")
    assert log.rows() == []
    log.write(1, loss=np.float32(0.5), samples=64)
    log.write(1, **{"validation/loss": 0.25})
    assert MetricLog(tmp_path / "run").rows() == [
        {"step": 1, "loss": 0.5, "samples": 64},
        {"step": 1, "validation/loss": 0.25},
    ]


def test_what_is_not_finite_is_null_and_named(tmp_path: Path) -> None:
    with MetricLog(tmp_path) as log:
        log.write(7, loss=math.nan, gradient_norm=-math.inf, learning_rate=0.1)
    line = (tmp_path / "metrics.jsonl").read_text()
    row = json.loads(line, parse_constant=pytest.fail)
    named = ["loss", "gradient_norm"]
    assert row == {"step": 7, "loss": None, "gradient_norm": None, "learning_rate": 0.1, "not_finite": named}


@pytest.mark.parametrize(("step", "values"), [(-1, {}), (1.5, {}), (1, {"not_finite": 1.0})])
def test_what_would_spoil_the_log_is_refused(tmp_path: Path, step: Any, values: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        MetricLog(tmp_path).write(step, **values)


def test_a_damaged_line_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"loss": 2}\n{"step": 3}\n{"st')
    with pytest.raises(StoreError, match="line 2 of"):
        MetricLog(tmp_path).rows()


@given(steps=st.integers(1, 12), after=st.integers(0, 12), cut=st.integers(1, 400))
@SAME_FOLDER
def test_a_run_that_was_killed_and_goes_on_has_the_log_of_one_that_was_not(
    tmp_path: Path, steps: int, after: int, cut: int
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.unlink(missing_ok=True)

    def write(first: int, log: MetricLog) -> None:
        for step in range(first, steps + 1):
            log.write(step, loss=1 / step, gradient_norm=math.inf if step % 3 else 2.5)
            log.write(step, **{"validation/loss": step / 7})

    with MetricLog(tmp_path) as log:
        write(1, log)
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    with MetricLog(tmp_path) as log:
        known = max((row["step"] for row in log.rows()), default=0)
        after = min(after, known - 1 if known else 0)
        log.truncate(after)
        assert all(row["step"] <= after for row in log.rows())
        write(after + 1, log)
    assert path.read_bytes() == whole


def test_the_next_writer_cuts_off_half_a_line(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    with MetricLog(tmp_path) as log:
        assert [row["step"] for row in log.rows()] == [1]
        log.write(2, loss=1.0)
        assert log.rows() == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]


def read_events(folder: Path) -> list[Any]:
    """All events of a folder's files, each a record: length, its checksum, content, its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    events = []
    for path in sorted(folder.iterdir(), key=lambda path: path.suffix):
        data = path.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            events.append(Event.FromString(data[12 : 12 + size]))
            data = data[16 + size :]
    return events


def test_tensorboard_gets_every_number_and_forgets_repeated_steps(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    with MetricLog(tmp_path, tensorboard=True) as log:
        log.write(1, loss=3.0, **{"validation/loss": 4.0})
        log.write(2, loss=2.0)
        log.truncate(1)
        log.write(2, loss=1.5)
    events = read_events(tmp_path / "tensorboard")
    values = [(event.step, v.tag, v.simple_value) for event in events for v in event.summary.value]
    assert values == [(1, "loss", 3.0), (1, "validation/loss", 4.0), (2, "loss", 2.0), (2, "loss", 1.5)]
    assert [event.step for event in events if event.HasField("session_log")] == [2]  # from there on it is told anew


def test_without_tensorboard_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UsageError) as error:
        MetricLog(tmp_path, tensorboard=True)
    assert error.value.hint == "pip install 'nunbit[tensorboard]'"
