"""Answers of tiny models: as a loop without a cache gives them, alone and side by side, for every preset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from nunbit.errors import ConfigError, UsageError
from nunbit.generate import GenerationConfig, Generator
from nunbit.generate.decoding import CausalDecoding, EncoderDecoderDecoding
from nunbit.generate.prefix import PrefixCache, keys_of
from nunbit.generate.sampling import Sampler, keep_likely
from nunbit.generate.sessions import TorchSession
from nunbit.language_model import make_language_model
from nunbit.vlm.assembly import list_presets
from nunbit.vlm.batching import Sample, collate
from nunbit.vlm.conversation import PICTURE, Turn
from nunbit.vlm.model import VisionLanguageModel
from tiny_vlm import make_lively_vlm as make_vlm
from tiny_vlm import picture, question

CAUSAL = [name for name in list_presets() if name not in ("blip2-flan-t5", "pali-x")]
LENGTH = 12


@pytest.fixture(scope="module", params=list_presets())
def model(request: pytest.FixtureRequest) -> VisionLanguageModel:
    return make_vlm(request.param)


@pytest.fixture(scope="module")
def llava() -> VisionLanguageModel:
    return make_vlm("llava")


def read(generator: Generator, *asked: tuple[str, int]) -> list[Sample]:
    return [
        generator.reader.read(question(words, int(seed >= 0)), [picture(seed)] if seed >= 0 else [], answer=True)
        for words, seed in asked
    ]


@torch.inference_mode()
def without_cache(model: VisionLanguageModel, sample: Sample, tokens: Sequence[int]) -> Tensor:
    """(N + 1, V): what follows the question and each of N tokens, everything read anew each time."""
    language_model = model.language_model
    inputs = collate([sample], encoder_decoder=language_model.is_encoder_decoder)
    embedded = model.embed(inputs.input_ids, model.image_tokens(inputs))
    rows = []
    for count in range(len(tokens) + 1):
        said = torch.tensor([tokens[:count]], dtype=torch.long)
        if language_model.is_encoder_decoder:
            start = torch.tensor([[language_model.model.config.decoder_start_token_id]])
            decoder = torch.cat([start, said], 1)
            rows.append(language_model(embedded, inputs.attention_mask, decoder_input_ids=decoder).logits[0, -1])
        else:
            rows.append(language_model(torch.cat([embedded, language_model.embed(said)], 1)).logits[0, -1])
    return torch.stack(rows)


def decoding_of(model: VisionLanguageModel, samples: Sequence[Sample], prefixes: PrefixCache | None = None) -> Any:
    if model.language_model.is_encoder_decoder:
        return EncoderDecoderDecoding(model, samples)
    return CausalDecoding(model, samples, TorchSession(model.language_model, prefixes))


def greedy(decoding: Any, count: int = LENGTH) -> list[list[int]]:
    """The likeliest tokens of each answer, whatever would end it."""
    logits, tokens = decoding.first(), []
    for _ in range(count):
        tokens.append(logits.argmax(1).tolist())
        logits = decoding.next(tokens[-1])
    decoding.close()
    return [list(answer) for answer in zip(*tokens, strict=True)]


def test_every_preset_says_what_it_says_without_a_cache(model: VisionLanguageModel) -> None:
    generator = Generator(model)
    (sample,) = read(generator, ("What is it?", 0))
    (tokens,) = greedy(decoding_of(model, [sample]))
    logits = without_cache(model, sample, tokens)
    assert logits[:-1].argmax(1).tolist() == tokens
    decoding = decoding_of(model, [sample])
    stepped = [decoding.first(), *(decoding.next([token]) for token in tokens)]
    torch.testing.assert_close(torch.cat(stepped), logits, atol=2e-4, rtol=1e-3)


def test_side_by_side_each_says_what_it_says_alone(model: VisionLanguageModel) -> None:
    generator = Generator(model)
    samples = read(generator, ("What is it?", 0), ("Where is the thing that you see?", 1), ("Hello", -1))
    alone = [greedy(decoding_of(model, [sample]))[0] for sample in samples]
    assert greedy(decoding_of(model, samples)) == alone
    for config in (GenerationConfig(max_new_tokens=LENGTH), GenerationConfig(max_new_tokens=LENGTH, temperature=1.0)):
        assert generator.answer(samples, config) == ["".join(generator.stream(one, config)) for one in samples]


class Forwards:
    """Counts the tokens that a language model reads, and the pictures that an eye sees."""

    def __init__(self, model: VisionLanguageModel) -> None:
        self.tokens = self.pictures = 0
        model.language_model.model.register_forward_pre_hook(self._read, with_kwargs=True)
        model.eye.register_forward_pre_hook(self._see)

    def _read(self, module: Any, args: Any, kwargs: Any) -> None:
        self.tokens += kwargs["inputs_embeds"].shape[1]

    def _see(self, module: Any, args: Any) -> None:
        self.pictures += len(args[0])

    def take(self) -> tuple[int, int]:
        taken, self.tokens, self.pictures = (self.tokens, self.pictures), 0, 0
        return taken


@pytest.mark.parametrize("name", CAUSAL)
def test_what_was_read_before_is_not_read_again(name: str) -> None:
    model = make_vlm(name)
    generator, plain = Generator(model), Generator(model, kept=0)
    config = GenerationConfig(max_new_tokens=6)
    first, again, other, changed = read(generator, ("What?", 0), ("What?", 0), ("Where is it?", 0), ("What?", 1))
    wanted = plain.answer([first], config), plain.answer([other], config), plain.answer([changed], config)
    forwards = Forwards(model)
    assert generator.answer([first], config) == wanted[0]
    whole, pictures = forwards.take()
    assert pictures == first.looks and whole >= len(first.encoded.input_ids)
    assert generator.answer([again], config) == wanted[0]
    ends_with_picture = isinstance(keys_of(again)[-1], tuple)  # which is then read once more, as a whole
    tokens, pictures = forwards.take()
    assert ends_with_picture or (tokens, pictures) == (whole - len(first.encoded.input_ids) + 1, 0)
    assert generator.answer([other], config) == wanted[1]
    tokens, pictures = forwards.take()
    assert pictures == (other.looks if model.reads_instruction else 0)  # there the question changes what is seen
    if not model.reads_instruction:
        assert tokens < len("Where is it?") + len(model.config.chat.answer_before + model.config.chat.user_after) + 9
    assert generator.answer([changed], config) == wanted[2]
    assert forwards.take()[1] == changed.looks


def test_a_further_turn_reads_only_what_is_new(llava: VisionLanguageModel) -> None:
    generator, plain = Generator(llava), Generator(llava, kept=0)
    config = GenerationConfig(max_new_tokens=8)
    turns = [Turn("user", (PICTURE, "What is it?"))]
    (said,) = generator.answer([generator.reader.read(turns, [picture()], answer=True)], config)
    turns += [Turn("assistant", (said,)), Turn("user", ("And ", PICTURE, "this?"))]
    sample = generator.reader.read(turns, [picture(), picture(1)], answer=True)
    wanted = plain.answer([sample], config)
    logits = decoding_of(llava, [sample]).first()
    again = decoding_of(llava, [sample], generator._prefixes).first()
    torch.testing.assert_close(again, logits, atol=2e-4, rtol=1e-3)  # tells the pictures apart where answers may not
    forwards = Forwards(llava)
    assert generator.answer([sample], config) == wanted
    tokens, pictures = forwards.take()
    assert pictures == 1
    assert tokens < 120 < len(sample.encoded.input_ids)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_features_are_told_apart_whatever_their_numbers_are(llava: VisionLanguageModel, dtype: torch.dtype) -> None:
    (sample,) = read(Generator(llava), ("What is it?", 0))
    features = torch.randn(1, 16, llava.eye.hidden_size).to(dtype)
    seen = [replace(sample, pixel_values=None, image_features=one) for one in (features, features + 1, features.half())]
    assert len({tuple(keys_of(one)) for one in (*seen, sample)}) == 4


def test_what_was_read_in_part_is_not_kept() -> None:
    model = make_vlm("llava")
    generator = Generator(model)
    (sample,) = read(generator, ("What is it?", 0))
    config = GenerationConfig(max_new_tokens=6)

    def fail(*_: Any) -> None:
        raise MemoryError

    hook = model.language_model.model.model.layers[1].register_forward_pre_hook(fail)
    with pytest.raises(MemoryError):
        generator.answer([sample], config)
    hook.remove()
    assert generator.answer([sample], config) == Generator(model, kept=0).answer([sample], config)


def test_a_stream_that_nobody_reads_to_its_end_leaves_what_it_read(llava: VisionLanguageModel) -> None:
    generator = Generator(llava)
    (sample,) = read(generator, ("What is it?", 3))
    config = GenerationConfig(max_new_tokens=40)
    stream = generator.stream(sample, config)
    assert isinstance(stream, Iterator)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    forwards = Forwards(llava)
    assert generator.answer([sample], config) == Generator(llava, kept=0).answer([sample], config)
    assert forwards.take()[1] == sample.looks  # the plain one's alone


def test_a_cache_is_kept_for_the_last_conversations_and_written_by_none(llava: VisionLanguageModel) -> None:
    cache = PrefixCache(2)
    generator = Generator(llava)
    samples = read(generator, ("a", 0), ("a", 1), ("a", 2))
    found = []
    for sample in (*samples[:2], *samples):
        found.append(cache.take(keys_of(sample))[1])
        greedy(decoding_of(llava, [sample], cache), 2)
    shared = found[1]  # what stands in front of the picture
    lengths = [len(sample.encoded.input_ids) - 1 for sample in samples]
    assert found == [0, shared, *lengths[:2], shared]
    assert cache.take(keys_of(samples[0]))[1] == shared  # the oldest went
    assert 0 < shared < lengths[0] - 16


def test_a_picture_at_the_end_is_read_again_as_a_whole() -> None:
    model = make_vlm("instructblip")  # nothing stands between the question and the answer
    generator = Generator(model)
    sample = generator.reader.read([Turn("user", ("Look: ", PICTURE))], [picture()], answer=True)
    assert isinstance(keys_of(sample)[-1], tuple)
    config = GenerationConfig(max_new_tokens=6)
    first = generator.answer([sample], config)
    forwards = Forwards(model)
    assert generator.answer([sample], config) == first
    assert forwards.take()[1] == 1


def test_learned_positions_are_counted_without_padding() -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32}
    model = make_language_model({"model_type": "gpt2", **sizes}).eval()
    ids, mask = torch.randint(50, (1, 9)), torch.ones(1, 9, dtype=torch.long)
    wanted = model(model.embed(ids)).logits[:, -1]
    cache = DynamicCache()
    padding = torch.zeros(1, 3, dtype=torch.long)
    masks = torch.cat([padding, mask], 1)
    model.step(model.embed(torch.cat([padding, ids[:, :6]], 1)), masks[:, :9], cache)
    torch.testing.assert_close(model.step(model.embed(ids[:, 6:]), masks, cache), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_draws_follow_the_probabilities(temperature: float) -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    sampler = Sampler(GenerationConfig(temperature=temperature, seed=7), 1)
    drawn = torch.tensor([sampler(logits)[0] for _ in range(4000)]).bincount(minlength=4) / 4000
    torch.testing.assert_close(drawn, (logits[0] / temperature).softmax(0), atol=0.03, rtol=0)
    again = Sampler(GenerationConfig(temperature=temperature, seed=7), 2)
    sampler = Sampler(GenerationConfig(temperature=temperature, seed=7), 1)
    for _ in range(20):
        assert again(logits.repeat(2, 1)) == sampler(logits) * 2


@pytest.mark.parametrize("temperature", [1e-3, 1e-40, 5e-324])
def test_hardly_any_temperature_takes_the_likeliest(temperature: float) -> None:
    rows = torch.tensor([[2.0, 300.0, 0.0], [1e4, -1e4, 9e3]])
    assert Sampler(GenerationConfig(temperature=temperature), 2)(rows) == [1, 0]


def test_top_p_leaves_the_fewest_that_are_enough() -> None:
    row = torch.tensor([[0.1, 0.5, 0.15, 0.25]])
    for top_p, left in ((0.01, [1]), (0.5, [1]), (0.6, [1, 3]), (0.75, [1, 3]), (0.8, [1, 2, 3]), (1.0, [0, 1, 2, 3])):
        assert keep_likely(row, top_p)[0].nonzero().flatten().tolist() == left
    sampler = Sampler(GenerationConfig(temperature=1.0, top_p=0.6), 1)
    assert {sampler(row.log())[0] for _ in range(200)} == {1, 3}
    assert Sampler(GenerationConfig(), 1)(row) == [1]


def test_the_words_of_a_model_end_where_they_should(llava: VisionLanguageModel) -> None:
    generator = Generator(llava)
    (sample,) = read(generator, ("What is it?", 0))
    (tokens,) = greedy(decoding_of(llava, [sample]), 40)
    pieces = list(generator.stream(sample, GenerationConfig(max_new_tokens=40)))
    assert all(pieces)
    whole = "".join(pieces)
    end = tokens.index(2) if 2 in tokens else 40
    assert whole == generator.reader.tokenizer.decode(tokens[:end], skip_special_tokens=True).removeprefix(" ")
    stop = whole[3]
    assert generator.answer([sample], GenerationConfig(max_new_tokens=40, stop=(stop,))) == [whole[: whole.index(stop)]]


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_new_tokens": 0},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"stop": ("a", "")},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        GenerationConfig(**wrong)


def test_a_conversation_ends_where_the_positions_end() -> None:
    model = make_vlm("blip2-opt")
    generator = Generator(model)
    (sample,) = read(generator, ("x" * 480, 0))
    most = model.language_model.model.config.max_position_embeddings
    room = most - len(sample.encoded.input_ids)
    assert 0 < room < 30
    config = GenerationConfig(max_new_tokens=1000)
    alone = [generator.answer([one], config)[0] for one in (sample, *read(generator, ("What?", 0)))]
    assert generator.answer([sample, *read(generator, ("What?", 0))], config) == alone
    assert len(alone[0]) <= room < len(alone[1])
    both = [sample, *read(generator, ("What?", 0))]
    assert decoding_of(model, both).rooms[1] > decoding_of(model, both).rooms[0] == room
    model.language_model.takes_positions = False  # padding is counted, then
    assert decoding_of(model, both).rooms == [room, room]
    (longer,) = read(generator, ("x" * 520, 0))
    with pytest.raises(UsageError, match="reads 512 at most"):
        generator.answer([longer], GenerationConfig())
    assert generator.answer([], GenerationConfig()) == []
