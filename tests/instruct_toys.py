"""A few conversations about a few pictures, and a tiny language model's folder: enough to train in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from nunbit.instruct.formats import Conversation, write_conversations
from nunbit.language_model import make_language_model
from nunbit.vlm.assembly import read_preset
from nunbit.vlm.conversation import PICTURE, Turn
from tiny_vlm import byte_tokenizer, noise


def make_conversations(folder: Path, *, broken: bool = True) -> Path:
    """Eight pictures with three questions each, one text alone; with a broken and a missing picture."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for number in range(8):
        path = folder / f"{number}.png"
        noise(number).save(path)
        for place in range(3):
            answer = f"{number * place} of {'abc'[place]}"
            found.append(_ask(f"{number}-{place}", path, f"Question {place}?", answer))
    found.append(Conversation("text", (Turn("user", ("Hello",)), Turn("assistant", ("Hi there",))), ()))
    if broken:
        (folder / "broken.png").write_bytes((folder / "0.png").read_bytes()[:100])
        found += [
            _ask("broken", folder / "broken.png", "What?", "no"),
            _ask("gone", folder / "gone.png", "What?", "no"),
        ]
    write_conversations(folder / "train.jsonl", found, "llava")
    return folder / "train.jsonl"


def _ask(name: str, path: Path, question: str, answer: str) -> Conversation:
    return Conversation(name, (Turn("user", (PICTURE, question)), Turn("assistant", (answer,))), (path,))


def make_language_folder(folder: Path, preset: str = "llava", **changes: Any) -> Path:
    """A language model as `transformers` keeps it, of the sizes of a preset in small."""
    tokenizer = byte_tokenizer()
    model = make_language_model({**read_preset(preset, tiny=True).language_model, **changes}, tokenizer)
    model.model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_recipe(folder: Path, **changes: Any) -> Path:
    """A configuration in ``folder``, where `make_conversations` and `make_language_folder` (``lm``) wrote."""
    recipe: dict[str, Any] = {
        "model": {"preset": "llava", "tiny": True, "language_model": "lm", "stage": "finetune"},
        "data": {"train": [{"path": "train.jsonl"}], "batch_size": 6, "micro_tokens": 800},
        "training": {
            "steps": 6, "learning_rate": 1e-3, "warmup_steps": 2, "log_every": 1, "evaluate_every": 0,
            "checkpoint_every": 2, "precision": "float32", "device": "cpu",
        },
    }  # fmt: skip
    for name, value in changes.items():
        group, _, setting = name.partition("__")
        recipe[group][setting] = value
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path
