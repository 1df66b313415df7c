"""Families of `transformers` as talkers: tiny random models, read from folders as they are published."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from nunbit.chat import Message, open_talker
from nunbit.chat.transformers_talker import TransformersTalker
from nunbit.errors import UnsupportedModel, UsageError, WeightsError
from nunbit.generate import GenerationConfig
from tiny_families import FAMILIES
from tiny_vlm import picture

CONFIG = GenerationConfig(max_new_tokens=12)


@pytest.fixture(scope="module", params=list(FAMILIES))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    FAMILIES[request.param](folder)
    return folder


@pytest.fixture(scope="module")
def talker(folder: Path) -> TransformersTalker:
    opened = open_talker(str(folder))
    assert isinstance(opened, TransformersTalker)
    return opened


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llava")
    FAMILIES["llava"](folder)
    return folder


def ask(talker: Any, *parts: str | Image.Image, config: GenerationConfig = CONFIG) -> str:
    return "".join(talker.talk([Message("user", parts)], config))


def generated(talker: TransformersTalker, *parts: str | Image.Image) -> str:
    """What `transformers` itself answers, in one go."""
    model, processor = talker._model, talker._processor
    content = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part} for part in parts
    ]
    messages = [{"role": "user", "content": content}]
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    with torch.inference_mode():
        ids = model.generate(**inputs, do_sample=False, max_new_tokens=CONFIG.max_new_tokens)[0]
    begun = inputs["input_ids"].shape[1] if len(ids) > CONFIG.max_new_tokens + 1 else 0
    return str(processor.tokenizer.decode(ids[begun:], skip_special_tokens=True))


def test_every_family_sees_and_answers_as_transformers_has_it(talker: TransformersTalker) -> None:
    said = ask(talker, picture(), "What?")
    whole = generated(talker, picture(), "What?")
    assert said == whole.rstrip("\ufffd") != ""  # an answer that is cut does not end in a part of a character
    assert len({said, ask(talker, picture(1), "What?"), ask(talker, picture(), "Where is it?")}) == 3


def test_every_family_goes_on_and_draws_and_stops(talker: TransformersTalker) -> None:
    first = Message("user", (picture(), "What?"))
    more = [first, Message("assistant", ("It.",)), Message("user", ("And?",))]
    assert "".join(talker.talk(more, CONFIG)) != "".join(talker.talk(more[:1], CONFIG))
    drawn = [
        ask(talker, picture(), "?", config=GenerationConfig(max_new_tokens=12, temperature=3.0, seed=seed))
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    said = ask(talker, picture(), "What?")
    cold = GenerationConfig(max_new_tokens=CONFIG.max_new_tokens, temperature=1e-38)
    assert ask(talker, picture(), "What?", config=cold) == said
    stop = said[len(said) // 2]
    config = GenerationConfig(max_new_tokens=12, stop=(stop,))
    assert ask(talker, picture(), "What?", config=config) == said[: said.index(stop)]


def test_a_stream_that_nobody_reads_to_its_end_leaves_no_thread(llava: Path) -> None:
    talker = open_talker(str(llava))
    assert isinstance(talker, TransformersTalker)
    talker._model.generation_config.eos_token_id = None  # it never ends by itself
    steps: list[None] = []
    talker._model.register_forward_pre_hook(lambda *_: steps.append(None))
    before, state = set(threading.enumerate()), torch.get_rng_state()
    config = GenerationConfig(max_new_tokens=1500, temperature=1.0)
    stream = talker.talk([Message("user", (picture(), "What?"))], config)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert set(threading.enumerate()) <= before and len(steps) < 1000  # those of other tests may end meanwhile
    assert torch.equal(torch.get_rng_state(), state)


def changed(llava: Path, into: Path, **config: Any) -> Path:
    shutil.copytree(llava, into)
    told = json.loads((into / "config.json").read_text(encoding="utf-8"))
    (into / "config.json").write_text(json.dumps(told | config), encoding="utf-8")
    return into


def test_folders_that_cannot_be_used_are_refused(llava: Path, tmp_path: Path) -> None:
    for number, model_type in enumerate(("llama", "not_known", None)):
        with pytest.raises(UnsupportedModel, match="that sees"):
            open_talker(str(changed(llava, tmp_path / str(number), model_type=model_type)))
    for name, words in (("processor_config.json", "no processor"), ("chat_template.jinja", "no chat template")):
        folder = changed(llava, tmp_path / name)
        (folder / name).unlink()
        with pytest.raises(UnsupportedModel, match=words):
            open_talker(str(folder))
    folder = changed(llava, tmp_path / "pickle")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises((UnsupportedModel, WeightsError), match="safetensors"):
        open_talker(str(folder))
    with pytest.raises(WeightsError, match="misshapen"):
        open_talker(str(changed(llava, tmp_path / "sizes", vision_config={"model_type": "clip_vision_model"})))


def test_a_model_that_only_hears_is_refused(llava: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.AutoProcessor.from_pretrained", lambda *_, **__: object())
    with pytest.raises(UnsupportedModel, match="takes no pictures"):
        open_talker(str(llava))


def test_a_template_that_refuses_is_told(llava: Path, tmp_path: Path) -> None:
    folder = changed(llava, tmp_path / "one")
    (folder / "chat_template.jinja").write_text("{{ raise_exception('one turn alone') }}", encoding="utf-8")
    with pytest.raises(UsageError, match="one turn alone") as caught:
        ask(open_talker(str(folder)), picture(), "What?")
    assert "one picture alone" in caught.value.hint


def test_what_goes_wrong_while_it_answers_is_raised_where_it_is_read(llava: Path) -> None:
    talker = open_talker(str(llava))
    assert isinstance(talker, TransformersTalker)
    talker._model.forward = None
    with pytest.raises(TypeError):
        ask(talker, picture(), "What?")
