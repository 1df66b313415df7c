"""A ``tokenizer.json`` of any kind: its vocabulary, and the marks that it puts around a text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nunbit.errors import UnsupportedModel
from nunbit.text.tokenizer import RustVocabulary

if TYPE_CHECKING:
    from tokenizers import Tokenizer as RustTokenizer


@dataclass(frozen=True, slots=True)
class Marks:
    """Tokens in front of every text and behind it, by their spelling; None for none."""

    begin: str | None
    end: str | None


@dataclass(frozen=True, slots=True)
class JsonTokenizer:
    """What a ``tokenizer.json`` holds.

    Attributes:
        content: The file, as the library would write it.
        tokenizer: The library's reading of it.
        tokens: Token → id, added tokens included.
        marks: What the file itself puts around a text.
    """

    content: dict[str, Any]
    tokenizer: RustTokenizer
    tokens: dict[str, int]
    marks: Marks

    def vocabulary(self, marks: Marks, *, lower: bool = False) -> RustVocabulary:
        """The vocabulary, with the marks noted for libraries that read the file when it is saved again.

        Args:
            marks: What closes and opens a text; here `nunbit.text.Tokenizer` adds it.
            lower: Make the text lower case before anything that the file says.
        """
        from tokenizers.normalizers import Lowercase
        from tokenizers.normalizers import Sequence as Normalizers

        if lower:
            own = self.tokenizer.normalizer
            self.tokenizer.normalizer = Normalizers([Lowercase(), *([own] if own is not None else [])])
        note_marks(self.tokenizer, marks)
        return RustVocabulary(self.tokenizer, self._identity(lower=lower))

    def _identity(self, *, lower: bool) -> str:
        model = dict(self.content["model"])
        if "merges" in model:  # written as "a b" once, as ["a", "b"] now
            model["merges"] = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
        added = [(token["id"], token["content"]) for token in self.content.get("added_tokens") or []]
        steps = json.dumps(self.content.get("normalizer")), json.dumps(self.content.get("pre_tokenizer"))
        lower = lower or "Lowercase" in steps[0]
        return json.dumps([model, added, steps[1], lower], sort_keys=True)


def read_json_tokenizer(folder: Path) -> JsonTokenizer:
    """Read ``tokenizer.json``.

    Raises:
        UnsupportedModel: There is none, it cannot be read, or it puts more than one mark on a side of a text.
    """
    from tokenizers import Tokenizer as RustTokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        hint = "copy tokenizer.json (or spiece.model) from where the model is from"
        raise UnsupportedModel(f"{folder} has no tokenizer.json", hint=hint)
    try:
        tokenizer = RustTokenizer.from_file(str(path))
        content = json.loads(tokenizer.to_str())  # the library's own form: the same before and after it saves
    except Exception as error:  # the library raises plain Exception
        raise UnsupportedModel(f"{path} cannot be read: {error}", hint="copy it again") from error
    return JsonTokenizer(content, tokenizer, tokenizer.get_vocab(with_added_tokens=True), _marks(tokenizer, path))


def note_marks(tokenizer: RustTokenizer, marks: Marks) -> None:
    """Make the library itself put these marks around a text."""
    from tokenizers.processors import TemplateProcessing

    around = [mark for mark in (marks.begin, marks.end) if mark is not None]
    template = " ".join([*([marks.begin] if marks.begin else []), "$A", *([marks.end] if marks.end else [])])
    special = [(mark, tokenizer.token_to_id(mark)) for mark in around]
    tokenizer.post_processor = TemplateProcessing(single=template, special_tokens=special)


def _marks(tokenizer: RustTokenizer, path: Path) -> Marks:
    """What the file puts around a text, seen by what it does to one."""
    plain = tokenizer.encode("a", add_special_tokens=False).ids
    marked = tokenizer.encode("a", add_special_tokens=True).ids
    extra = len(marked) - len(plain)
    for before in range(extra + 1):
        if marked[before : before + len(plain)] == plain and max(before, extra - before) <= 1:
            ends = [tokenizer.id_to_token(marked[0])] * before, [tokenizer.id_to_token(marked[-1])] * (extra - before)
            return Marks(*(next(iter(side), None) for side in ends))
    raise UnsupportedModel(f"{path} puts more around a text than one mark on each side")
