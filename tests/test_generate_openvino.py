"""The language model on OpenVINO answers as on torch, and reads nothing twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from nunbit.errors import UnsupportedModel, UsageError
from nunbit.generate import GenerationConfig, Generator
from nunbit.generate.decoding import CausalDecoding, Decoding
from nunbit.generate.openvino_decoding import OpenVinoDecoding, OpenVinoEngine, choose_engine
from nunbit.vlm.conversation import PICTURE, Turn
from nunbit.vlm.model import VisionLanguageModel
from tiny_vlm import make_lively_vlm, picture, question

CONFIG = GenerationConfig(max_new_tokens=24)
LLAMAS = ["llava", "smolvlm", "nanovlm", "instructblip", "mplug-owl"]


def generators(name: str) -> tuple[VisionLanguageModel, Generator, Generator]:
    model = make_lively_vlm(name)
    return model, Generator(model), Generator(model, engine=OpenVinoEngine(model.language_model))


def logits_of(decoding: Decoding, tokens: Sequence[Sequence[int]]) -> torch.Tensor:
    """(N + 1, B, V): what follows the questions, and each of N given tokens of every answer."""
    rows = [decoding.first(), *(decoding.next(some) for some in tokens)]
    decoding.close()
    return torch.stack(rows).float()


@pytest.mark.parametrize("name", LLAMAS)
def test_answers_are_those_of_torch(name: str) -> None:
    model, plain, quick = generators(name)
    samples = [
        plain.reader.read(question("What is it?"), [picture(1)], answer=True),
        plain.reader.read(question("Are these the same, or not at all?", 2), [picture(2), picture(3)], answer=True),
        plain.reader.read(question("Hello", 0), [], answer=True),
    ]
    assert quick.answer(samples, CONFIG) == plain.answer(samples, CONFIG)
    assert "".join(quick.stream(samples[0], CONFIG)) == "".join(plain.stream(samples[0], CONFIG))
    engine = OpenVinoEngine(model.language_model)
    for some in (samples, samples[:1], samples[1:2], samples[1:]):
        tokens = [[7 + place + number for number in range(len(some))] for place in range(5)]
        expected = logits_of(CausalDecoding(model, some, None), tokens)
        found = logits_of(OpenVinoDecoding(model, some, engine), tokens)
        np.testing.assert_allclose(found, expected, atol=1e-4 * float(expected.abs().max()))


def test_logits_are_those_of_torch_to_rounding() -> None:
    model = make_lively_vlm("nanovlm")
    engine = OpenVinoEngine(model.language_model)
    torch.manual_seed(0)
    embedded = torch.randn(3, 9, model.language_model.hidden_size)
    mask = torch.ones(3, 9, dtype=torch.bool)
    mask[1, :4] = False
    expected = model.language_model(embedded, mask).logits[:, -1]
    np.testing.assert_allclose(engine.read(embedded, mask), expected, atol=1e-4 * float(expected.abs().max()))


def test_a_further_turn_reads_only_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    _, plain, quick = generators("nanovlm")
    read: list[int] = []
    engine: Any = quick._engine
    whole = engine.read
    monkeypatch.setattr(engine, "read", lambda embeds, mask: read.append(embeds.shape[1]) or whole(embeds, mask))
    turns = [Turn("user", (PICTURE, "What is it?"))]
    for words in ("And why?", "Since when?"):
        sample = quick.reader.read(turns, [picture(1)], answer=True)
        before, read[:] = len(sample.encoded.input_ids), []
        answer = quick.answer([sample], CONFIG)[0]
        assert answer == Generator(plain.model, kept=0).answer([sample], CONFIG)[0]
        assert read[0] == before if words == "And why?" else read[0] < before - 20
        turns += [Turn("assistant", (answer,)), Turn("user", (words,))]
    other = quick.reader.read([Turn("user", (PICTURE, "What is it?"))], [picture(2)], answer=True)
    assert quick.answer([other], CONFIG) == Generator(plain.model, kept=0).answer([other], CONFIG)


def test_in_sixteen_bits_it_says_nearly_the_same() -> None:
    model = make_lively_vlm("llava")
    torch.manual_seed(0)
    embedded, mask = torch.randn(1, 12, model.language_model.hidden_size), torch.ones(1, 12, dtype=torch.bool)
    exact, rounded = (
        OpenVinoEngine(model.language_model, precision).read(embedded, mask)  # type: ignore[arg-type]
        for precision in ("float32", "bfloat16")
    )
    assert float((exact - rounded).abs().max()) > 0
    assert torch.cosine_similarity(exact, rounded).item() > 0.999


def test_another_architecture_is_refused() -> None:
    model = make_lively_vlm("blip2-opt")
    with pytest.raises(UnsupportedModel, match="kind opt") as caught:
        OpenVinoEngine(model.language_model)
    assert "torch" in caught.value.hint


def test_the_engine_is_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    llama, opt = (make_lively_vlm(name).language_model for name in ("llava", "blip2-opt"))
    assert choose_engine(llama) is None  # tests run with $NUNBIT_ENGINE=torch
    assert choose_engine(llama, "auto") is None
    assert choose_engine(llama, "openvino-bf16") is not None
    with pytest.raises(UnsupportedModel):
        choose_engine(opt, "openvino")
    with pytest.raises(UsageError, match="onnxruntime computes no language models"):
        choose_engine(llama, "onnxruntime")
    monkeypatch.setenv("NUNBIT_ENGINE", "openvino-fp32")
    assert choose_engine(llama) is not None
