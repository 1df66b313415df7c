from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants, file_download

import nunbit
from clip_models import make_towers
from fake_hub import FakeHub
from nunbit.errors import ModelNotFound, UsageError, WeightsError
from nunbit.hub import Snapshot, fetch_model, split_revision

NAME = "somebody/clip"
TOKEN = "hf_" + "Secret0123456789" * 2
TRANSFORMERS = {
    "config.json": b'{"model_type": "clip"}',
    "model.safetensors": b"w" * 5000,
    "preprocessor_config.json": b"{}",
    "tokenizer.json": b'{"version": "1.0"}',
    "LICENSE.txt": b"MIT",
    "README.md": b"# CLIP",
}
OPEN_CLIP = {"open_clip_config.json": b'{"model_cfg": {}}', "open_clip_model.safetensors": b"o" * 4000}
OTHERS = {
    ".gitattributes": b"*",
    "pytorch_model.bin": b"pickle",
    "tf_model.h5": b"h5",
    "flax_model.msgpack": b"flax",
    "model.fp16.safetensors": b"half",
    "onnx/model.safetensors": b"deeper",
    "onnx/config.json": b"{}",
}


def sharded(*present: str) -> dict[str, bytes]:
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = {"weight_map": {"a": names[0], "b": names[1], "c": names[1]}}
    return {
        "config.json": b'{"model_type": "siglip"}',
        "model.safetensors.index.json": json.dumps(index).encode(),
        **{name: name.encode() * 100 for name in present or names},
    }


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "hub"


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub that the client of this very process uses, with a cache of its own and nobody logged in."""
    with FakeHub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        url = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        yield server


def contents(snapshot: Snapshot) -> dict[str, bytes]:
    return {str(p.relative_to(snapshot.folder)): p.read_bytes() for p in snapshot.folder.rglob("*") if p.is_file()}


def refusal(hub_id: str = NAME, **options: Any) -> ModelNotFound:
    """The error of a load that fails: one line each for what happened and for what to do, and no token."""
    with pytest.raises(ModelNotFound) as caught:
        fetch_model(hub_id, **options)
    error = caught.value
    assert hub_id.partition("@")[0] in error.message and error.hint
    assert "\n" not in str(error)
    assert TOKEN not in str(error) and "Bearer" not in str(error)
    return error


def test_first_load_downloads_what_is_needed_and_nothing_else(hub: FakeHub) -> None:
    commit = hub.repository(NAME).push({**TRANSFORMERS, **OTHERS})
    snapshot = fetch_model(NAME)
    assert snapshot == Snapshot(snapshot.folder, NAME, commit)
    assert contents(snapshot) == TRANSFORMERS
    assert hub.downloads() == sorted(TRANSFORMERS)


@pytest.mark.parametrize("asked", [NAME, f"{NAME}@main", f"{NAME}@commit"])
def test_second_load_asks_nothing(hub: FakeHub, asked: str) -> None:
    commit = hub.repository(NAME).push(TRANSFORMERS)
    asked = asked.replace("commit", commit)
    first = fetch_model(asked)
    hub.requests.clear()
    assert fetch_model(asked) == first
    assert hub.requests == []


def test_moved_branch_changes_nothing_until_another_commit_is_asked_for(hub: FakeHub) -> None:
    repository = hub.repository(NAME)
    old = repository.push(TRANSFORMERS)
    assert fetch_model(NAME).commit == old
    new = repository.push({**TRANSFORMERS, "model.safetensors": b"better"})
    assert fetch_model(NAME).commit == old
    newer = fetch_model(NAME, revision=new)
    assert newer.commit == new and contents(newer)["model.safetensors"] == b"better"
    assert fetch_model(NAME).commit == old  # asking for another once does not move those who ask for none
    assert fetch_model(f"{NAME}@{new}").commit == new


def test_what_was_begun_is_completed_at_the_same_commit(hub: FakeHub) -> None:
    repository = hub.repository(NAME)
    old = repository.push(TRANSFORMERS)
    (fetch_model(NAME).folder / "tokenizer.json").unlink()
    repository.push({**TRANSFORMERS, "model.safetensors": b"better"})
    again = fetch_model(NAME)
    assert again.commit == old and contents(again) == TRANSFORMERS


def test_a_begun_commit_that_is_gone_is_named_with_the_folder_to_delete(hub: FakeHub) -> None:
    repository = hub.repository(NAME)
    old = repository.push(TRANSFORMERS)
    folder = fetch_model(NAME).folder
    (folder / "tokenizer.json").unlink()
    del repository.commits[old]
    new = repository.push(TRANSFORMERS)
    error = refusal()
    assert old in error.message
    assert f"delete {folder.parent.parent}" in error.hint
    shutil.rmtree(folder.parent.parent)
    assert fetch_model(NAME).commit == new


def test_branches_have_their_own_commits(hub: FakeHub) -> None:
    repository = hub.repository(NAME)
    main = repository.push(TRANSFORMERS)
    branch = repository.push({**TRANSFORMERS, "model.safetensors": b"other"}, "refs/pr/4")
    assert fetch_model(f"{NAME}@refs/pr/4").commit == branch
    assert fetch_model(NAME).commit == main


@pytest.mark.parametrize("at", ["config.json", "model.safetensors", "tokenizer.json"])
def test_cut_download_is_no_model_and_a_retry_completes_it(
    hub: FakeHub, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)  # the client waits before each of its retries
    hub.repository(NAME).push(TRANSFORMERS)
    hub.cut_after = {at: 3}
    assert "closed connection" in refusal().message
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in refusal().message
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.cut_after = {}
    hub.requests.clear()
    assert contents(fetch_model(NAME)) == TRANSFORMERS
    assert at in hub.downloads()


@pytest.mark.parametrize("missing", [*TRANSFORMERS])
def test_a_file_lost_from_the_cache_is_fetched_again(hub: FakeHub, missing: str) -> None:
    hub.repository(NAME).push(TRANSFORMERS)
    folder = fetch_model(NAME).folder
    (folder / missing).resolve().unlink()  # leaves a dangling link, as a tidied cache does
    hub.requests.clear()
    assert contents(fetch_model(NAME)) == TRANSFORMERS
    assert hub.downloads() == [missing]


@pytest.mark.parametrize(
    ("config", "taken"),
    [(b'{"model_type": "clip"}', "model.safetensors"), (b'{"architecture": "vit"}', "open_clip_model.safetensors")],
    ids=["transformers", "timm"],
)
def test_of_two_sets_of_weights_one_is_downloaded(hub: FakeHub, config: bytes, taken: str) -> None:
    files = {**TRANSFORMERS, **OPEN_CLIP, "config.json": config}
    hub.repository(NAME).push(files)
    snapshot = fetch_model(NAME)
    left = ({"model.safetensors", "open_clip_model.safetensors"} - {taken}).pop()
    assert contents(snapshot) == {name: body for name, body in files.items() if name != left}
    hub.requests.clear()
    assert fetch_model(NAME) == snapshot and hub.requests == []


@pytest.mark.parametrize("weights", ["open_clip_model.safetensors", "open_clip_pytorch_model.safetensors"])
def test_open_clip_alone(hub: FakeHub, weights: str) -> None:
    files = {"open_clip_config.json": b"{}", weights: b"o", "vocab.json": b"{}", "merges.txt": b"a b"}
    hub.repository(NAME).push({**files, "open_clip_pytorch_model.bin": b"pickle"})
    assert contents(fetch_model(NAME)) == files


def test_shards_are_read_from_their_index(hub: FakeHub) -> None:
    hub.repository(NAME).push({**sharded(), "model-00001-of-00003.safetensors": b"not in the index"})
    snapshot = fetch_model(NAME)
    assert contents(snapshot) == sharded()
    hub.requests.clear()
    assert fetch_model(NAME) == snapshot and hub.requests == []
    (snapshot.folder / "model-00002-of-00002.safetensors").unlink()
    assert contents(fetch_model(NAME)) == sharded()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (sharded("model-00001-of-00002.safetensors"), "model-00002-of-00002.safetensors"),
        ({**sharded(), "model.safetensors.index.json": b"{}"}, "no weight_map"),
        ({**sharded(), "model.safetensors.index.json": b"<html>"}, "no weight_map"),
    ],
)
def test_an_index_that_cannot_be_followed(hub: FakeHub, files: dict[str, bytes], said: str) -> None:
    hub.repository(NAME).push(files)
    for _ in range(2):  # downloaded, then cached
        with pytest.raises(WeightsError, match=said):
            fetch_model(NAME)


def test_pickles_are_refused_by_name_and_not_downloaded(hub: FakeHub) -> None:
    hub.repository(NAME).push({"config.json": b"{}", "pytorch_model.bin": b"p", "tf_model.h5": b"h"})
    error = refusal()
    assert "pytorch_model.bin, tf_model.h5" in error.message
    assert "only safetensors are read" in error.hint and "convert" in error.hint
    assert hub.downloads() == ["config.json"]


def test_weights_without_their_config_are_not_downloaded(hub: FakeHub) -> None:
    hub.repository(NAME).push({"model.safetensors": b"w", "README.md": b"", "open_clip_model.safetensors": b"o"})
    assert "expected config.json with model.safetensors" in refusal().message
    assert hub.downloads() == []


def test_offline(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repository(NAME).push(TRANSFORMERS)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    error = refusal()
    assert "HF_HUB_OFFLINE" in error.message and "unset HF_HUB_OFFLINE" in error.hint
    assert "model.safetensors" in error.hint and hub.requests == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    snapshot = fetch_model(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch_model(NAME) == snapshot


def test_a_snapshot_that_another_program_made(hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no list of files: completed when the hub can be reached, else used if it can be a model."""
    hub.repository(NAME).push(TRANSFORMERS)
    snapshot = fetch_model(NAME)

    def forget() -> None:
        shutil.rmtree(snapshot.folder.parent.parent / "trees")
        monkeypatch.setattr("huggingface_hub._tree_cache._IN_MEMORY_TREE_CACHE", {})

    forget()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch_model(NAME) == snapshot
    (snapshot.folder / "tokenizer.json").unlink()
    assert fetch_model(NAME) == snapshot
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert contents(fetch_model(NAME)) == TRANSFORMERS
    forget()
    (snapshot.folder / "model.safetensors").unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "in part only" in refusal().message


def test_no_network(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    error = refusal()
    assert "refused" in error.message
    assert "check the id and the network" in error.hint and "give its path" in error.hint


def test_unknown_repository(hub: FakeHub) -> None:
    error = refusal("somebody/clop")
    assert "no such repository" in error.message
    assert f"{hub.endpoint}/somebody/clop" in error.hint


def test_unknown_revision_lists_those_that_there_are(hub: FakeHub) -> None:
    hub.repository(NAME).push(TRANSFORMERS)
    hub.repository(NAME).push(TRANSFORMERS, "v1.0")
    error = refusal(f"{NAME}@v2.0")
    assert "'v2.0'" in error.message
    assert "main, v1.0" in error.hint


@pytest.mark.parametrize("answer", ["401 GatedRepo", "403 GatedRepo", "401 Other", "403 Other"])
def test_no_access(hub: FakeHub, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.repository(NAME).push(TRANSFORMERS)
    hub.broken = answer
    error = refusal()
    assert answer[:3] in error.message
    assert "licence" in error.hint and "HF_TOKEN" in error.hint
    hub.broken = ""
    assert contents(fetch_model(NAME)) == TRANSFORMERS


def test_hub_that_is_down(hub: FakeHub) -> None:
    hub.repository(NAME).push(TRANSFORMERS)
    hub.down = True
    error = refusal()
    assert "500" in error.message and "network" in error.hint


def test_full_disk(hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    hub.repository(NAME).push(TRANSFORMERS)
    monkeypatch.setattr(file_download, "_chmod_and_move", full)
    error = refusal()
    assert "No space left" in error.message and str(cache) in error.hint


def test_token_goes_to_the_hub_and_into_no_message(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.repository(NAME).push(TRANSFORMERS)
    with caplog.at_level("DEBUG"):
        fetch_model(NAME)
    assert {request.authorization for request in hub.requests} == {f"Bearer {TOKEN}"}
    assert TOKEN not in caplog.text and TOKEN not in "".join(capfd.readouterr())


def test_token_that_cannot_be_sent_is_not_shown(hub: FakeHub, cache: Path) -> None:
    hub.repository(NAME).push(TRANSFORMERS)
    cache.mkdir()
    (cache / "token").write_text(f"{TOKEN}\0")
    error = refusal()
    assert "header" in error.message
    assert error.__suppress_context__ and error.__cause__ is None  # the trace would show it


def test_ids() -> None:
    assert split_revision(NAME) == (NAME, None)
    assert split_revision(f"{NAME}@v1.0") == (NAME, "v1.0")
    assert split_revision(f"{NAME}@refs/pr/4") == (NAME, "refs/pr/4")
    for bad in ("clip", "a/b/c", "a/", f"{NAME}@", f"{NAME}@../../x", f"{NAME}@/etc", f"{NAME}@a b", f"{NAME}@\n"):
        with pytest.raises(UsageError, match="not a hub id"):
            split_revision(bad)


def test_two_revisions(hub: FakeHub) -> None:
    commit = hub.repository(NAME).push(TRANSFORMERS)
    with pytest.raises(UsageError, match="two revisions"):
        fetch_model(f"{NAME}@main", revision="v1.0")
    with pytest.raises(UsageError, match="not a revision"):
        fetch_model(NAME, revision="../x")
    assert hub.requests == []
    assert fetch_model(f"{NAME}@main", revision="main").commit == commit


def test_an_id_that_the_client_refuses(hub: FakeHub) -> None:
    assert "--" in refusal("some--body/clip").message


def test_environment_is_honored_and_nothing_is_printed_off_a_terminal(hub: FakeHub, tmp_path: Path) -> None:
    """A fresh process, so that the client reads its variables as users set them."""
    hub.repository(NAME).push(TRANSFORMERS)
    home = tmp_path / "home"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "DO_NOT_TRACK"))}
    environment |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), "HF_TOKEN": TOKEN}
    program = (
        f"from nunbit.hub import fetch_model; import sys; print(fetch_model({NAME!r}).folder, 'torch' in sys.modules)"
    )

    def run(**more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program]
        return subprocess.run(command, env=environment | more, capture_output=True, text=True, timeout=60, check=False)

    offline = run(HF_HUB_OFFLINE="1")
    assert "unset HF_HUB_OFFLINE" in offline.stderr and hub.requests == []
    first = run()
    assert first.stderr == ""
    assert first.stdout.startswith(str(home)) and first.stdout.split()[1] == "False"
    hub.requests.clear()
    assert run(HF_HUB_OFFLINE="1").stdout == run().stdout == first.stdout
    assert hub.requests == []


@pytest.mark.parametrize("pooling", ["class_token", "mean"])
def test_a_published_model_answers_like_the_folder_it_came_from(hub: FakeHub, tmp_path: Path, pooling: str) -> None:
    own = make_towers(tmp_path, pooling=pooling, class_token=pooling == "class_token")
    own.save(tmp_path / "saved")
    commit = hub.repository(NAME).push({file.name: file.read_bytes() for file in (tmp_path / "saved").iterdir()})
    assert nunbit.load(NAME).fingerprint == own.fingerprint
    assert len([name for name in hub.downloads() if name.endswith(".safetensors")]) == 1
    hub.requests.clear()
    assert nunbit.load(f"{NAME}@{commit}").encode_text(["a cat"]).shape == (1, 24)
    assert hub.requests == []
