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

from nunbit.caches import cache_folder
from nunbit.engine.openvino_models import CompiledModel
from nunbit.errors import EngineRefused, UnsupportedModel, UsageError
from nunbit.generate import GenerationConfig, Generator, openvino_engine
from nunbit.generate.decoding import CausalDecoding, Decoding
from nunbit.generate.llama_graph import FUSED
from nunbit.generate.low_bits import find_low_bits
from nunbit.generate.openvino_engine import OpenVinoEngine, OpenVinoSession, choose_engine
from nunbit.generate.openvino_eye import OpenVinoEye
from nunbit.generate.sessions import TorchSession
from nunbit.language_model import LanguageModel, make_language_model
from nunbit.lora import LoraConfig, add_lora
from nunbit.vlm.conversation import PICTURE, Turn
from nunbit.vlm.model import VisionLanguageModel
from test_generate_low_bits import as_q4_1, as_q8_0
from tiny_vlm import make_lively_vlm, make_vlm, picture, question

CONFIG = GenerationConfig(max_new_tokens=24)
LLAMAS = ["llava", "smolvlm", "nanovlm", "instructblip", "mplug-owl"]


def generators(name: str) -> tuple[VisionLanguageModel, Generator, Generator]:
    model = make_lively_vlm(name)
    return model, Generator(model), Generator(model, engine=choose_engine(model, "openvino-fp32"))


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
    engine = choose_engine(model, "openvino-fp32")
    assert engine is not None and engine.eye is not None
    for some in (samples, samples[:1], samples[1:2], samples[1:]):
        tokens = [[7 + place + number for number in range(len(some))] for place in range(5)]
        expected = logits_of(CausalDecoding(model, some, TorchSession(model.language_model)), tokens)
        found = logits_of(CausalDecoding(model, some, OpenVinoSession(engine)), tokens)
        np.testing.assert_allclose(found, expected, atol=1e-4 * float(expected.abs().max()))


def test_logits_are_those_of_torch_to_rounding() -> None:
    model = make_lively_vlm("nanovlm")
    engine = OpenVinoEngine(model.language_model)
    torch.manual_seed(0)
    embedded = torch.randn(3, 9, model.language_model.hidden_size)
    mask = torch.ones(3, 9, dtype=torch.bool)
    mask[1, :4] = False
    expected = model.language_model(embedded, mask).logits[:, -1].detach()
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
    opened: list[str] = []
    whole = OpenVinoEngine.__init__

    def opening(self: OpenVinoEngine, model: LanguageModel, precision: Any, **settings: Any) -> None:
        opened.append(precision)
        whole(self, model, precision, **settings)

    monkeypatch.setattr(OpenVinoEngine, "__init__", opening)
    llama, opt = make_vlm("llava"), make_vlm("blip2-opt")
    assert choose_engine(llama) is None  # tests run with $NUNBIT_ENGINE=torch
    for name in ("openvino", "openvino-int8", "openvino-fp32", "auto"):
        assert choose_engine(llama, name) is not None
    monkeypatch.setenv("NUNBIT_ENGINE", "openvino-fp32")
    assert choose_engine(llama) is not None
    assert opened == ["int8", "int8", "fp32", "int8", "fp32"]
    with pytest.raises(UnsupportedModel):
        choose_engine(opt, "openvino")
    for name in ("onnxruntime", "openvino-bf16"):
        with pytest.raises(UsageError, match=f"{name} computes no language models"):
            choose_engine(llama, name)
        monkeypatch.setenv("NUNBIT_ENGINE", name)  # meant for encoders
        assert choose_engine(llama) is not None and opened[-1] == "int8"


def test_what_says_something_else_is_refused_and_auto_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_engine(make_vlm("blip2-opt"), "auto") is None
    model = make_vlm("llava")
    assert choose_engine(model, "auto") is not None
    right = OpenVinoEngine.read

    def wrong(engine: OpenVinoEngine, embeds: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        logits = right(engine, embeds, mask)
        return logits.roll(1, 1) if embeds.shape[1] == 1 else logits

    def fails(*_: Any) -> torch.Tensor:
        raise RuntimeError("no memory")

    for read, said in ((wrong, "says something else: cosine"), (fails, "cannot compute the language model: no memory")):
        monkeypatch.setattr(OpenVinoEngine, "read", read)
        assert choose_engine(model, "auto") is None
        with pytest.raises(EngineRefused, match=said):
            choose_engine(model, "openvino-int8")


def test_an_eye_that_cannot_run_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(CompiledModel, "__call__", fails)
    engine = choose_engine(make_vlm("llava"), "auto")
    assert engine is not None and engine.eye is None


def test_a_model_in_bfloat16_is_held_to_its_own_rounding() -> None:
    model = even_llama(seed=8)
    model.bfloat16()
    engine = OpenVinoEngine(model)
    embedded, mask = what_is_read(model)
    expected = model(embedded.bfloat16(), mask).logits[:, -1].detach().float()
    assert torch.cosine_similarity(engine.read(embedded.bfloat16(), mask), expected).item() > 0.999


def test_corrections_beside_the_weights_are_not_passed_over() -> None:
    model = make_lively_vlm("nanovlm")
    add_lora(model.language_model, LoraConfig(rank=2, targets=("*.q_proj.weight",)))
    with pytest.raises(UnsupportedModel, match="q_proj"):
        OpenVinoEngine(model.language_model)
    assert choose_engine(model, "auto") is None


def test_a_graph_whose_numbers_are_damaged_is_made_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NUNBIT_CACHE", str(tmp_path))
    model = even_llama(seed=7)
    expected = OpenVinoEngine(model).read(*what_is_read(model))
    (weights,) = cache_folder("graphs").glob("llama-*.bin")
    content = bytearray(weights.read_bytes())
    content[: len(content) // 2] = bytes(len(content) // 2)
    weights.write_bytes(content)  # as a power cut leaves it
    for _ in range(2):
        assert torch.equal(OpenVinoEngine(model).read(*what_is_read(model)), expected)


def test_two_conversations_at_once_are_not_mixed_up() -> None:
    model, plain, _ = generators("nanovlm")
    engine = OpenVinoEngine(model.language_model)
    one, other = (plain.reader.read(question("What is it?"), [picture(seed)], answer=True) for seed in (1, 2))
    expected = logits_of(CausalDecoding(model, [other], TorchSession(model.language_model)), [[7], [8]])
    first, second = (CausalDecoding(model, [sample], OpenVinoSession(engine)) for sample in (one, other))
    first.first()
    found = [second.first()]
    with pytest.raises(UsageError, match="another question was asked"):
        first.next([7])
    first.close()
    found += [second.next([7]), second.next([8])]
    np.testing.assert_allclose(torch.stack(found), expected, atol=1e-4 * float(expected.abs().max()))


def test_nothing_is_remembered_where_nothing_shall_be() -> None:
    model = make_lively_vlm("nanovlm")
    engine = choose_engine(model, "openvino-fp32")
    assert engine is not None
    generator = Generator(model, kept=0, engine=engine)
    sample = generator.reader.read(question("What is it?"), [picture(1)], answer=True)
    assert generator.answer([sample], CONFIG) == generator.answer([sample], CONFIG)
    assert engine.keys == []


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
    writer = openvino_engine.build_graph

    def build(*inputs: Any, loss: bool) -> Any:
        made.append(1)
        return writer(*inputs, loss=loss)

    monkeypatch.setattr(openvino_engine, "build_graph", build)
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
