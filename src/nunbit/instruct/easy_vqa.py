"""easy-VQA: drawings of one shape each, and questions about it, from the package of that name (MIT)."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Literal

from nunbit.errors import ModelNotFound
from nunbit.instruct.formats import Conversation, Shown
from nunbit.vlm.conversation import PICTURE, Turn


def read_easy_vqa(split: Literal["train", "test"]) -> list[Conversation]:
    """All questions of a split, one a conversation.

    Raises:
        ModelNotFound: The package is not installed.
    """
    try:
        folder = Path(str(distribution("easy-vqa").locate_file(f"easy_vqa/data/{split}")))
    except PackageNotFoundError as error:
        raise ModelNotFound("the package easy-vqa is not installed", hint="pip install --no-deps easy-vqa") from error
    rows = json.loads((folder / "questions.json").read_text(encoding="utf-8"))
    return [
        ask(f"easy-vqa-{split}-{number}", folder / "images" / f"{image}.png", question, answer)
        for number, (question, answer, image) in enumerate(rows)
    ]


def ask(name: str, image: Shown, question: str, answer: str) -> Conversation:
    """One question about one picture, and its answer."""
    return Conversation(name, (Turn("user", (PICTURE, question)), Turn("assistant", (answer,))), (image,))
