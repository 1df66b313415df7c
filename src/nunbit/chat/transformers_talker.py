"""Any vision-language model that `transformers` reads from a folder, as a talker."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from jinja2 import TemplateError

from nunbit.chat.messages import Message, split
from nunbit.errors import UnsupportedModel, UsageError
from nunbit.generate import GenerationConfig
from nunbit.generate.answer_text import AnswerText, Endings
from nunbit.language_model import Precision
from nunbit.language_model.transformers_model import import_transformers, load_model
from nunbit.picture_files import one_line
from nunbit.pretrained.parts import read_json
from nunbit.pretrained.weights import find_weights

_LOCAL = {"local_files_only": True, "trust_remote_code": False}
_COLDEST = 1e-3  # a temperature; `transformers` divides by it, and less would overflow
_LONGEST = 300  # of what `transformers` says, in characters
_TURNS = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}ANSWER{% else %}QUESTION{% endif %}"
    "{% for c in m['content'] if c['type'] == 'text' %}{{ c['text'] }}{% endfor %} {% endfor %}ANSWER"
)
# Of families whose folders hold none: as their papers ask. Their processors put the picture in front by themselves.
_TEMPLATES = {
    "blip-2": _TURNS.replace("ANSWER", "Answer:").replace("QUESTION", "Question: "),
    "instructblip": _TURNS.replace("ANSWER", "").replace("QUESTION", ""),
}


class TransformersTalker:
    """A model of `transformers` with its own processor and chat template; it serves one thread at a time.

    Args:
        name: What it was opened as.
        model: Generates.
        processor: Its processor, with a chat template.
    """

    def __init__(self, name: str, model: Any, processor: Any) -> None:
        self.name = name
        self._model, self._processor = model, processor

    def talk(self, messages: Sequence[Message], config: GenerationConfig) -> Generator[str, None, bool]:
        """As `Talker.talk`."""
        split(messages)
        plain = [{"role": message.role, "content": [_plain(part) for part in message.parts]} for message in messages]
        try:
            inputs = self._processor.apply_chat_template(
                plain, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
            )
        except (ValueError, TypeError, TemplateError) as error:
            message = f"{self.name} does not take such a conversation: {_short(error)}"
            hint = "some models take one picture alone, no system's words, or no further turns"
            raise UsageError(message, hint=hint) from error
        inputs = inputs.to(self._model.device, dtype=self._model.dtype)
        answer = AnswerText(self._processor.tokenizer, Endings(self._ends(), stop=config.stop), config.max_new_tokens)
        tokens = _Tokens()
        worker = threading.Thread(target=self._generate, args=(inputs, config, tokens), daemon=True)
        worker.start()
        try:
            for token in tokens:
                if piece := answer.add(token):
                    yield piece
                if answer.done:
                    break
            if piece := answer.finish():
                yield piece
            return answer.cut
        finally:  # also when whoever reads stops reading
            tokens.enough = True
            worker.join()

    def _ends(self) -> frozenset[int]:
        found: list[int | None] = [self._processor.tokenizer.eos_token_id]
        told = self._model.generation_config.eos_token_id
        found += told if isinstance(told, list) else [told]
        return frozenset(number for number in found if number is not None)

    def _generate(self, inputs: Any, config: GenerationConfig, tokens: _Tokens) -> None:
        """Run in a thread: `transformers` hands tokens out, and does not let itself be asked for the next one."""
        drawn = config.temperature >= _COLDEST
        settings: dict[str, Any] = {"do_sample": drawn, "max_new_tokens": config.max_new_tokens}
        if drawn:
            settings |= {"temperature": config.temperature, "top_p": config.top_p, "top_k": 0}
        try:
            with torch.random.fork_rng(), torch.inference_mode():
                torch.manual_seed(config.seed)
                self._model.generate(
                    **inputs, **settings, streamer=tokens, stopping_criteria=[lambda *_, **__: tokens.stop_now(inputs)]
                )
        except Exception as error:  # it is raised again where somebody waits
            tokens.fail(error)
        finally:
            tokens.end()


class _Tokens:
    """Tokens on their way from one thread to another; a streamer of `transformers`."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[int | Exception | None] = queue.SimpleQueue()
        self._prompt = True
        self.enough = False

    def put(self, value: Any) -> None:
        """Take what `transformers` gives: the question's tokens first, then one of the answer at a time."""
        if not self._prompt:
            self._waiting.put(int(value))
        self._prompt = False

    def stop_now(self, inputs: Any) -> Any:
        """Whether to end, as a stopping criterion says it."""
        return torch.full((len(inputs["input_ids"]),), self.enough, device=inputs["input_ids"].device)

    def fail(self, error: Exception) -> None:
        """Nothing comes any more, for this reason."""
        self._waiting.put(error)

    def end(self) -> None:
        """Nothing comes any more."""
        self._waiting.put(None)

    def __iter__(self) -> Iterator[int]:
        while (token := self._waiting.get()) is not None:
            if isinstance(token, Exception):
                raise token
            yield token


def open_transformers(spec: str) -> TransformersTalker:
    """Open a folder of `transformers`; its code is never run, and only safetensors are read.

    Raises:
        UnsupportedModel: The model takes no pictures, is of an unknown kind, or has no processor that can be read.
        WeightsError: Missing, unexpected or misshapen tensors.
    """
    transformers, folder = import_transformers(), Path(spec)
    model_type = str(read_json(folder / "config.json").get("model_type"))
    cls = _class_for(model_type)
    find_weights(folder, ("model.safetensors",))
    try:
        config = transformers.AutoConfig.from_pretrained(folder, **_LOCAL)
        processor = transformers.AutoProcessor.from_pretrained(folder, **_LOCAL)
    except (OSError, ValueError, TypeError, ImportError, AttributeError, KeyError) as error:
        raise UnsupportedModel(f"{folder} has no processor that can be read: {_short(error)}") from error
    if not hasattr(processor, "image_processor"):
        raise UnsupportedModel(f"{folder}: a model of type {model_type!r} takes no pictures")
    own = getattr(processor, "chat_template", None) or getattr(processor.tokenizer, "chat_template", None)
    processor.chat_template = own or _TEMPLATES.get(model_type)
    if not processor.chat_template:
        raise UnsupportedModel(f"{folder} has no chat template", hint="add chat_template.jinja from the model's page")
    model = load_model(cls, folder, _precision(config), where=spec, config=config, **_LOCAL)
    return TransformersTalker(spec, model, processor)


def _class_for(model_type: str) -> Any:
    """The class that reads models of a type which take pictures and texts.

    Raises:
        UnsupportedModel: `transformers` has none.
    """
    transformers = import_transformers()
    known = model_type in transformers.CONFIG_MAPPING
    for choices in (transformers.AutoModelForImageTextToText, transformers.AutoModelForMultimodalLM):
        if known and transformers.CONFIG_MAPPING[model_type] in choices._model_mapping:
            return choices
    message = f"transformers {transformers.__version__} has no model of type {model_type!r} that sees"
    raise UnsupportedModel(message, hint="code that a model folder brings along is never run")


def _precision(config: Any) -> Precision:
    """As it was stored; half precision with few exponents computes slowly or not at all on processors."""
    stored = str(config.dtype).removeprefix("torch.")
    usable = stored if stored in get_args(Precision) and stored != "float16" else "float32"
    precision: Precision = usable  # type: ignore[assignment]
    return precision


def _short(error: Exception) -> str:
    return one_line(" ".join(str(error).split())[:_LONGEST])


def _plain(part: Any) -> dict[str, Any]:
    return {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part}
