"""What a language model says a class looks like (CuPL, arXiv 2209.03320): questions out to a file, answers in from one.

No language model is called here. Any of them, or a person, answers the questions.

Shapes: C classes, D width.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nunbit.class_folders import tidy_label
from nunbit.durable import replace_file
from nunbit.errors import UsageError

if TYPE_CHECKING:
    from nunbit.encode import Encoder
    from nunbit.types import FloatArray

QUESTIONS = (
    "Describe in one sentence what {label} looks like in a photograph.",
    "How can one tell {label} from similar things by looking? Answer in one sentence.",
    "What are the colors, shapes and parts of {label}? Answer in one sentence.",
)


def write_questions(classnames: Sequence[str], path: Path) -> None:
    """Write what to ask, a line of JSON a class: ``{"label": ..., "questions": [...], "descriptions": []}``.

    With ``descriptions`` filled in, `read_descriptions` takes the same file.
    """
    rows = [
        {"label": name, "questions": [one.format(label=name) for one in QUESTIONS], "descriptions": []}
        for name in classnames
    ]
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    replace_file(path, lambda file: file.write(content))


def read_descriptions(path: Path) -> dict[str, tuple[str, ...]]:
    """Read answers: lines as `write_questions` writes them, or one JSON object of label → sentences.

    Returns:
        Sentences by label; a label without any is left out.

    Raises:
        UsageError: The file holds something else, or no sentence.
    """
    hint = 'write a line a class: {"label": "cup", "descriptions": ["a cup has a handle"]}'
    try:
        text = path.read_text(encoding="utf-8-sig")
        found = _object(text) or [json.loads(line) for line in text.splitlines() if line.strip()]
        pairs = found.items() if isinstance(found, dict) else [(row["label"], row["descriptions"]) for row in found]
        read = {tidy_label(label): tuple(s.strip() for s in sentences if s.strip()) for label, sentences in pairs}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} holds no descriptions: {error}", hint=hint) from error
    read = {label: sentences for label, sentences in read.items() if sentences}
    if not read:
        raise UsageError(f"{path} describes nothing yet", hint=hint)
    return read


def embed_descriptions(
    encoder: Encoder, classnames: Sequence[str], words: FloatArray, descriptions: Mapping[str, Sequence[str]]
) -> FloatArray:
    """Rows of classes as the mean of the row of their words and of their sentences' rows.

    Args:
        encoder: Embeds the sentences.
        classnames: C labels.
        words: (C, D) unit rows of the labels alone; a class that is not described keeps its row.
        descriptions: Sentences by label.

    Returns:
        (C, D) float32 unit rows.

    Raises:
        UsageError: A described label is no class: a typo would do nothing and not be seen.
    """
    strange = sorted(set(descriptions) - set(classnames))
    if strange:
        raise UsageError(f"{strange[0]!r} is described and is no class", hint=f"classes: {', '.join(classnames[:10])}")
    rows = np.array(words, np.float32)
    for number, name in enumerate(classnames):
        if sentences := descriptions.get(name):
            said = np.concatenate([words[number : number + 1], encoder.encode_text(list(sentences))]).mean(0)
            rows[number] = said / max(float(np.linalg.norm(said)), 1e-12)
    return rows


def _object(text: str) -> dict[str, list[str]] | None:
    """One JSON object over all of the text whose values are lists, or None."""
    try:
        content = json.loads(text)
    except ValueError:
        return None
    lists = isinstance(content, dict) and all(isinstance(value, list) for value in content.values())
    return content if lists and "label" not in content else None
