"""How quickly a vision-language model answers: on OpenVINO here, and as transformers computes it.

Usage: python benchmarks/vlm_decoding.py --pictures ../shared/data/coco/images [--prompts 50] [--tokens 32] [--page]

* The language model alone, SmolLM2-135M-Instruct as its package has it: greedy answers to the same questions, on the
  same threads. In float32 both must say the same, token for token; where they part, how near the two likeliest tokens
  were is shown. In fewer bits each rounds in its own way, and speed is what is compared.
* The starter's vision-language model, whose weights are no longer those of the package: seconds from a picture that is
  ready for the eye to the first token, and tokens a second after it.

Rounds of the contenders alternate.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from nunbit.console import track
from nunbit.generate import openvino_engine
from nunbit.generate.decoding import CausalDecoding, Decoding
from nunbit.generate.openvino_engine import OpenVinoEngine, OpenVinoSession, choose_engine
from nunbit.generate.sessions import Session, TorchSession
from nunbit.images import find_images, open_image
from nunbit.language_model import LanguageModel, Precision, load_language_model
from nunbit.vlm.batching import Sample, SampleReader
from nunbit.vlm.conversation import PICTURE, Turn
from nunbit.vlm.loading import load_vlm
from nunbit.vlm.model import VisionLanguageModel
from transformers import DynamicCache

from pages import Page, table

MODEL = "smollm2-135m-instruct"
BASE = "transformers bf16"
ROUNDS = 10
THINGS = ("cat", "bridge", "river", "violin", "mountain", "battery", "island", "window", "garden", "clock")
FORMS = (
    "What is a {}?",
    "Write one sentence about a {}.",
    "Name three kinds of {}.",
    "Why would somebody draw a {}?",
    "Explain to a child how a {} came to be.",
)

Step: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Ask: TypeAlias = "Callable[[Any, int], Answer]"


@dataclass(frozen=True, slots=True)
class Answer:
    """Tokens, seconds to the first of them and for all others, and how far ahead each was of the next likeliest."""

    tokens: tuple[int, ...]
    first: float
    rest: float
    margins: tuple[float, ...]


def main() -> None:
    """Ask, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=Path, required=True, help="a folder; ten of it are asked about")
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--page", action="store_true", help="write benchmarks/results")
    options = parser.parse_args()
    page = Page("vlm-decoding", "The next token: OpenVINO and transformers")
    page.add("## SmolLM2-135M-Instruct")
    prompts = [form.format(thing) for thing in THINGS for form in FORMS][: options.prompts]
    exact = {"transformers fp32": _torch("float32"), "openvino fp32": _openvino("fp32")}
    page.add(_same(exact, _ids(prompts), options.tokens))
    quick = {
        "transformers bf16": _torch("bfloat16"),
        "openvino int8": _openvino("int8"),
    }
    timings = {name: contender.answer for name, contender in (exact | quick).items()}
    page.add(_speed(timings, _ids(prompts[:ROUNDS]), options.tokens))
    page.add("## The starter's vision-language model, and a picture")
    page.add(_speed(_seeing(), _pictures(options.pictures), options.tokens))
    page.close(to_file=options.page)


@dataclass(frozen=True, slots=True)
class Contender:
    """What answers: the embeddings, and a new conversation's step."""

    model: LanguageModel
    begin: Callable[[], Step]

    @torch.inference_mode()
    def answer(self, ids: torch.Tensor, count: int) -> Answer:
        """Greedily, so many tokens, whatever would end the answer."""
        step, mask = self.begin(), torch.ones_like(ids, dtype=torch.bool)

        def following(token: int) -> torch.Tensor:
            nonlocal mask
            mask = torch.cat([mask, mask.new_ones(1, 1)], dim=1)
            return step(self.model.embed(torch.tensor([[token]])), mask)

        return _timed(lambda: step(self.model.embed(ids), mask), following, count)


def _timed(first: Callable[[], torch.Tensor], following: Callable[[int], torch.Tensor], count: int) -> Answer:
    """So many tokens greedily, whatever would end the answer."""
    start = time.perf_counter()
    logits = first()
    tokens, margins = [int(logits.argmax())], [_margin(logits)]
    to_first = time.perf_counter() - start
    for _ in range(count - 1):
        logits = following(tokens[-1])
        tokens.append(int(logits.argmax()))
        margins.append(_margin(logits))
    return Answer(tuple(tokens), to_first, time.perf_counter() - start - to_first, tuple(margins))


def _torch(precision: Precision) -> Contender:
    model = load_language_model(MODEL, precision=precision)

    def begin() -> Step:
        cache = DynamicCache()
        return lambda embeds, mask: model.step(embeds, mask.long(), cache)

    return Contender(model, begin)


def _openvino(precision: openvino_engine.Precision) -> Contender:
    model = load_language_model(MODEL)
    engine = OpenVinoEngine(model, precision)

    def begin() -> Step:
        engine.forget()
        return engine.read

    return Contender(model, begin)


def _seeing() -> dict[str, Ask]:
    """The same model twice, as a conversation's first question finds it: nothing was read before."""
    half = load_vlm("starter")
    half.projector.bfloat16()
    half.language_model.bfloat16()
    whole = load_vlm("starter")
    engine = choose_engine(whole, "openvino-int8")
    assert engine is not None

    def ask(model: VisionLanguageModel, begin: Callable[[], Session]) -> Ask:
        return lambda sample, count: _follow(CausalDecoding(model, [sample], begin(), remember=False), count)

    return {
        "transformers bf16": ask(half, lambda: TorchSession(half.language_model)),
        "openvino int8": ask(whole, lambda: OpenVinoSession(engine)),
    }


def _follow(decoding: Decoding, count: int) -> Answer:
    answer = _timed(decoding.first, lambda token: decoding.next([token]), count)
    decoding.close()
    return answer


def _pictures(folder: Path) -> list[Sample]:
    reader = SampleReader(load_vlm("starter"))
    files = [path for path in find_images([str(folder)]) if isinstance(path, Path)]
    chosen = files[:: max(1, len(files) // ROUNDS)][:ROUNDS]
    turns = [Turn("user", (PICTURE, "Describe the picture."))]
    return [reader.read(turns, [open_image(path)[0]], answer=True) for path in chosen]


def _same(contenders: dict[str, Contender], prompts: Sequence[torch.Tensor], count: int) -> str:
    same, parted = 0, []
    for ids in track(prompts, label="answers", total=len(prompts)):
        one, other = (contender.answer(ids, count) for contender in contenders.values())
        place = next(
            (n for n, pair in enumerate(zip(one.tokens, other.tokens, strict=True)) if pair[0] != pair[1]), None
        )
        same += place is None
        if place is not None:
            parted.append(f"token {place + 1}, {one.margins[place]:.1e} apart")
    told = f" Others part at: {'; '.join(parted)}." if parted else ""
    return f"Greedy answers of {count} tokens that are the same in float32: {same} of {len(prompts)}.{told}"


def _speed(contenders: Mapping[str, Ask], asked: Sequence[Any], count: int) -> str:
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    firsts: dict[str, list[float]] = {name: [] for name in contenders}
    for answer in contenders.values():
        answer(asked[0], 4)
    for one in track(asked, label="speed", total=len(asked)):
        for name, answer in contenders.items():
            found = answer(one, count)
            rates[name].append((count - 1) / found.rest)
            firsts[name].append(found.first)
    rows = [[name, *_against(rates[name], rates[BASE], 1, 1), *_against(firsts[name], firsts[BASE], 1000, -1)]
            for name in contenders]  # fmt: skip
    head = ["", "tokens a second", f"times {BASE}", "first token, ms", "times as quick"]
    return f"Medians of {len(asked)} answers of {count} tokens, and of the ratios in each round.\n\n" + table(
        head, rows
    )


def _against(values: list[float], base: list[float], unit: float, direction: int) -> tuple[str, str]:
    ratios = (np.array(values) / np.array(base)) ** direction
    return f"{unit * np.median(values):.1f}", f"{np.median(ratios):.2f}"


def _margin(logits: torch.Tensor) -> float:
    top = logits.float().flatten().topk(2).values
    return float(top[0] - top[1])


def _ids(prompts: Sequence[str]) -> list[torch.Tensor]:
    tokenizer = load_language_model(MODEL).tokenizer
    form = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    return [torch.tensor([tokenizer.encode(form.format(prompt))]) for prompt in prompts]


if __name__ == "__main__":
    main()
