"""The language model on OpenVINO answers as on torch, and reads nothing twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from nunbit.engine.names import Precision
from nunbit.errors import UnsupportedModel, UsageError
from nunbit.generate import GenerationConfig, Generator, openvino_decoding
from nunbit.generate.decoding import CausalDecoding, Decoding
from nunbit.generate.llama_graph import FUSED
from nunbit.generate.low_bits import find_low_bits
from nunbit.generate.openvino_decoding import OpenVinoDecoding, OpenVinoEngine, choose_engine
from nunbit.generate.openvino_eye import OpenVinoEye
from nunbit.language_model import LanguageModel, make_language_model
from nunbit.vlm.conversation import PICTURE, Turn
from nunbit.vlm.model import VisionLanguageModel
from test_generate_low_bits import as_q4_1, as_q8_0
from tiny_vlm import make_lively_vlm, make_vlm, picture, question

CONFIG = GenerationConfig(max_new_tokens=24)
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
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


def even_llama(seed: int = 0) -> LanguageModel:
    """Whose rows fall into groups of 32, as those of real models do."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 300}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2}
    return make_language_model({"model_type": "llama", **sizes, **heads}).eval()


def change_matrices(model: LanguageModel, change: Callable[[str, NDArray[np.float32]], NDArray[np.float32]]) -> None:
    with torch.no_grad():
        for name, weights in model.model.named_parameters():
            if weights.ndim == 2:
                weights.copy_(torch.from_numpy(change(name, weights.numpy())))


def what_is_read(model: LanguageModel, batch: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(batch, 12, model.hidden_size), torch.ones(batch, 12, dtype=torch.bool)


def test_in_sixteen_bits_it_says_nearly_the_same() -> None:
    model = even_llama()
    exact, rounded = (OpenVinoEngine(model, one).read(*what_is_read(model)) for one in PRECISIONS)
    assert float((exact - rounded).abs().max()) > 0
    assert torch.cosine_similarity(exact, rounded).item() > 0.999


def test_in_eight_bits_it_is_the_model_with_its_weights_rounded() -> None:
    model = even_llama()
    embedded, mask = what_is_read(model, 2)
    found = OpenVinoEngine(model, "int8").read(embedded, mask)
    assert float((found - OpenVinoEngine(model).read(embedded, mask)).abs().max()) > 0
    change_matrices(model, lambda name, weights: find_low_bits(weights, loss=True).weights())
    expected = model(embedded, mask).logits[:, -1].detach()
    np.testing.assert_allclose(found, expected, atol=1e-4 * float(expected.abs().max()))


def test_what_came_in_few_bits_is_kept_so_and_is_the_same() -> None:
    """Every matrix of a model as GGUF's Q4_1 leaves it, its vocabulary as Q8_0 does."""
    model = even_llama()
    whole = ("model.embed_tokens.weight", "lm_head.weight")
    change_matrices(model, lambda name, weights: as_q8_0(weights) if name in whole else as_q4_1(weights))
    engine = OpenVinoEngine(model)
    stored = count(engine, "outputPrecisions")
    assert (stored["u4"], stored["i8"]) == (5 * 2, 1)  # of a block one matrix stands for queries, keys and values
    embedded, mask = what_is_read(model, 2)
    expected = model(embedded, mask).logits[:, -1].detach()
    np.testing.assert_allclose(engine.read(embedded, mask), expected, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("name", LLAMAS)
def test_each_attention_keeps_its_keys_itself(name: str) -> None:
    """What OpenVINO does not find as it expects it, it computes in many small steps, at twice the time."""
    model = make_lively_vlm(name).language_model
    assert count(OpenVinoEngine(model), "layerType")[FUSED] == model.model.config.num_hidden_layers


def count(engine: OpenVinoEngine, what: str) -> Counter[str]:
    """What the plugin made of the graph's nodes."""
    graph = engine._request.get_compiled_model().get_runtime_model()
    return Counter(node.get_rt_info()[what].astype(str) for node in graph.get_ordered_ops())


def test_another_architecture_is_refused() -> None:
    model = make_lively_vlm("blip2-opt")
    with pytest.raises(UnsupportedModel, match="kind opt") as caught:
        OpenVinoEngine(model.language_model)
    assert "torch" in caught.value.hint


def test_the_engine_is_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    llama, opt = make_lively_vlm("llava"), make_lively_vlm("blip2-opt")
    assert choose_engine(llama) is None  # tests run with $NUNBIT_ENGINE=torch
    assert choose_engine(llama, "openvino-bf16") is not None
    with pytest.raises(UnsupportedModel):
        choose_engine(opt, "openvino")
    with pytest.raises(UsageError, match="onnxruntime computes no language models"):
        choose_engine(llama, "onnxruntime")
    monkeypatch.setenv("NUNBIT_ENGINE", "openvino-fp32")
    assert choose_engine(llama) is not None


def test_auto_takes_what_says_the_same_as_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_engine(make_lively_vlm("blip2-opt"), "auto") is None
    model = make_vlm("llava")
    assert choose_engine(model, "auto") is not None
    shifted = OpenVinoEngine.read
    monkeypatch.setattr(OpenVinoEngine, "read", lambda *inputs: shifted(*inputs).roll(1, 1))
    assert choose_engine(model, "auto") is None


@pytest.mark.parametrize("name", ["llava", "nanovlm", "starter"])
def test_the_eye_says_what_it_says_on_torch(name: str) -> None:
    eye = make_vlm(name).eye
    side = eye.preprocessing.image_size
    pixels = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(1))
    expected = eye(pixels).detach()
    found = OpenVinoEye(eye)(pixels)
    np.testing.assert_allclose(found, expected, atol=1e-4 * float(expected.abs().max()))


def test_a_graph_is_made_once_for_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    writer = openvino_decoding.build_graph

    def build(*inputs: Any) -> Any:
        made.append(1)
        return writer(*inputs)

    monkeypatch.setattr(openvino_decoding, "build_graph", build)
    model = even_llama(seed=5)
    first = OpenVinoEngine(model).read(*what_is_read(model))
    assert torch.equal(OpenVinoEngine(model).read(*what_is_read(model)), first)
    assert len(made) == 1
    OpenVinoEngine(model, "int8")
    with torch.no_grad():
        model.model.lm_head.weight[3, 3] += 1
    changed = OpenVinoEngine(model).read(*what_is_read(model))
    assert len(made) == 3
    assert not torch.equal(changed, first)


def test_a_cache_that_cannot_be_written_is_done_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NUNBIT_CACHE", str(tmp_path / "file"))
    model = even_llama(seed=6)
    expected = model(*what_is_read(model)).logits[:, -1].detach()
    found = OpenVinoEngine(model).read(*what_is_read(model))
    np.testing.assert_allclose(found, expected, atol=1e-4 * float(expected.abs().max()))
