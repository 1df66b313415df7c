"""How quickly a language model says its next token: on OpenVINO here, and as transformers computes it.

Usage: python benchmarks/vlm_decoding.py [--model smollm2-135m-instruct] [--prompts 50] [--tokens 32] [--page]

Greedy answers to the same questions, alone, on the same threads. In float32 both must say the same, token for token;
where they part, how near the two likeliest tokens were is shown. In bfloat16 each rounds in its own way, and speed is
what is compared. Rounds of the two alternate.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from nunbit.console import track
from nunbit.generate.openvino_decoding import OpenVinoEngine
from nunbit.language_model import LanguageModel, load_language_model
from transformers import DynamicCache

from pages import Page, table

THINGS = ("cat", "bridge", "river", "violin", "mountain", "battery", "island", "window", "garden", "clock")
FORMS = (
    "What is a {}?",
    "Write one sentence about a {}.",
    "Name three kinds of {}.",
    "Why would somebody draw a {}?",
    "Explain to a child how a {} came to be.",
)

Step = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


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
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--page", action="store_true", help="write benchmarks/results")
    options = parser.parse_args()
    page = Page("vlm-decoding", f"The next token of {options.model}: OpenVINO and transformers")
    prompts = [form.format(thing) for thing in THINGS for form in FORMS][: options.prompts]
    exact = {
        "transformers fp32": _torch(options.model, "float32"),
        "openvino fp32": _openvino(options.model, "float32"),
    }
    page.add(_same(exact, _ids(options.model, prompts), options.tokens))
    quick = {
        "transformers bf16": _torch(options.model, "bfloat16"),
        "openvino bf16": _openvino(options.model, "bfloat16"),
    }
    page.add(_speed(exact | quick, _ids(options.model, prompts[:10]), options.tokens))
    page.close(to_file=options.page)


@dataclass(frozen=True, slots=True)
class Contender:
    """What answers: the embeddings, and a new conversation's step."""

    model: LanguageModel
    begin: Callable[[], Step]

    @torch.inference_mode()
    def answer(self, ids: torch.Tensor, count: int) -> Answer:
        """Greedily, so many tokens, whatever would end the answer."""
        step = self.begin()
        mask = torch.ones_like(ids, dtype=torch.bool)
        start = time.perf_counter()
        logits = step(self.model.embed(ids), mask)
        tokens, margins = [int(logits.argmax())], [_margin(logits)]
        first = time.perf_counter() - start
        for _ in range(count - 1):
            mask = torch.cat([mask, mask.new_ones(1, 1)], dim=1)
            logits = step(self.model.embed(torch.tensor([[tokens[-1]]])), mask)
            tokens.append(int(logits.argmax()))
            margins.append(_margin(logits))
        return Answer(tuple(tokens), first, time.perf_counter() - start - first, tuple(margins))


def _torch(name: str, precision: str) -> Contender:
    model = load_language_model(name, precision=precision)  # type: ignore[arg-type]

    def begin() -> Step:
        cache = DynamicCache()
        return lambda embeds, mask: model.step(embeds, mask.long(), cache)

    return Contender(model, begin)


def _openvino(name: str, precision: str) -> Contender:
    model = load_language_model(name)
    engine = OpenVinoEngine(model, precision)  # type: ignore[arg-type]

    def begin() -> Step:
        engine.forget()
        return engine.read

    return Contender(model, begin)


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


def _speed(contenders: dict[str, Contender], prompts: Sequence[torch.Tensor], count: int) -> str:
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    firsts: dict[str, list[float]] = {name: [] for name in contenders}
    for contender in contenders.values():
        contender.answer(prompts[0], 4)
    for ids in track(prompts, label="speed", total=len(prompts)):
        for name, contender in contenders.items():
            found = contender.answer(ids, count)
            rates[name].append((count - 1) / found.rest)
            firsts[name].append(found.first)
    base = np.median(rates["transformers bf16"])
    first = np.median(firsts["transformers bf16"])
    rows = [
        [
            name,
            f"{np.median(rates[name]):.1f}",
            f"{np.median(rates[name]) / base:.2f}",
            f"{1000 * np.median(firsts[name]):.0f}",
            f"{first / np.median(firsts[name]):.2f}",
        ]
        for name in contenders
    ]
    head = ["", "tokens a second", "times transformers bf16", "first token, ms", "times as quick"]
    return f"Medians of {len(prompts)} answers, rounds alternating.\n\n" + table(head, rows)


def _margin(logits: torch.Tensor) -> float:
    top = logits.float().flatten().topk(2).values
    return float(top[0] - top[1])


def _ids(name: str, prompts: Sequence[str]) -> list[torch.Tensor]:
    tokenizer = load_language_model(name).tokenizer
    form = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    return [torch.tensor([tokenizer.encode(form.format(prompt))]) for prompt in prompts]


if __name__ == "__main__":
    main()
