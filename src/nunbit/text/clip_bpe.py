"""CLIP's byte-pair encoding, from any of the files that carry its vocabulary.

A text is cut into words, digits and runs of other signs; each becomes its UTF-8 bytes, written as printable
characters; then pairs are merged in the order in which they were learned. The last unit of a word carries ``</w>``.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from nunbit.errors import UnsupportedModel
from nunbit.text.json_vocabulary import Marks, note_marks, read_json_tokenizer
from nunbit.text.tokenizer import RustVocabulary

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Dialect: TypeAlias = Literal["transformers", "open_clip"]
VOCABULARY_FILE = "bpe_simple_vocab_16e6.txt.gz"
_MERGES = 49152 - 256 - 2  # the file lists more; CLIP's vocabulary holds these, 256 bytes twice, and two marks
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
END_OF_WORD = "</w>"
BEGIN, END = "<|startoftext|>", "<|endoftext|>"
OPENAI_MERGES = "f61f2adf497e6f5357c347aeb4646fabe82f341e946de5bdec5d2858e41bef4a"
"""sha256 of OpenAI's merges, one a line."""


@dataclass(frozen=True, slots=True)
class BytePairs:
    """A learned byte-pair encoding.

    Attributes:
        vocabulary: Token → id.
        merges: Pairs in the order in which they are merged.
        added: Further tokens that are found in a text before it is cut, by their spelling; the two marks are not
            among them.
    """

    vocabulary: dict[str, int]
    merges: list[tuple[str, str]]
    added: dict[str, int] = field(default_factory=dict)

    @property
    def is_openais(self) -> bool:
        """Tell whether it is the vocabulary that OpenAI trained, which open_clip has built in."""
        listing = "\n".join(map(" ".join, self.merges))
        return hashlib.sha256(listing.encode()).hexdigest() == OPENAI_MERGES and not self.added


class ClipVocabulary(RustVocabulary):
    """A byte-pair encoding of CLIP's kind.

    Attributes:
        openais: It is the one that OpenAI trained.
    """

    def __init__(self, tokenizer: Tokenizer, identity: str, *, openais: bool) -> None:
        super().__init__(tokenizer, identity)
        self.openais = openais


def read_byte_pairs(folder: Path) -> BytePairs:
    """Read CLIP's vocabulary from ``tokenizer.json``, ``vocab.json`` + ``merges.txt``, or OpenAI's gzipped list.

    Raises:
        UnsupportedModel: There is none of them.
    """
    if (folder / "tokenizer.json").is_file():
        file = read_json_tokenizer(folder)
        model = file.content["model"]
        pairs = (pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"])
        added = {token["content"]: int(token["id"]) for token in file.content.get("added_tokens") or []}
        added = {token: number for token, number in added.items() if token not in (BEGIN, END)}
        # The marks may be listed as added tokens only.
        vocabulary = dict(model["vocab"]) | {m: file.tokens[m] for m in (BEGIN, END) if m in file.tokens}
        return BytePairs(vocabulary, [(first, second) for first, second in pairs], added)
    if (path := folder / "vocab.json").is_file() and (listing := folder / "merges.txt").is_file():
        lines = listing.read_text(encoding="utf-8").splitlines()
        return BytePairs(json.loads(path.read_text(encoding="utf-8")), _pairs(lines))
    if (path := folder / VOCABULARY_FILE).is_file():
        with gzip.open(path, "rt", encoding="utf-8") as listed:
            merges = _pairs(listed.read().split("\n")[: _MERGES + 1])
        units = list(byte_characters().values())
        tokens = [*units, *(unit + END_OF_WORD for unit in units), *map("".join, merges), BEGIN, END]
        return BytePairs({token: number for number, token in enumerate(tokens)}, merges)
    hint = f"put CLIP's tokenizer.json, vocab.json and merges.txt, or {VOCABULARY_FILE} beside the weights"
    raise UnsupportedModel(f"{folder} has no vocabulary for its texts", hint=hint)


def make_vocabulary(pairs: BytePairs, dialect: Dialect) -> ClipVocabulary:
    """Build the tokenizer.

    Args:
        pairs: The vocabulary.
        dialect: ``transformers`` prepares the text inside (NFC, white space, lower case); ``open_clip`` expects it
            prepared, ignores case in contractions, and writes the marks in its own way.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers
    from tokenizers.models import BPE

    tokenizer = Tokenizer(
        BPE(
            vocab=pairs.vocabulary,
            merges=pairs.merges,
            continuing_subword_prefix="",
            end_of_word_suffix=END_OF_WORD,
            unk_token=END,
        )
    )
    if dialect == "transformers":
        steps = [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        tokenizer.normalizer = normalizers.Sequence(steps)
        further = sorted(pairs.added, key=lambda token: pairs.added[token])
        tokenizer.add_special_tokens(
            [AddedToken(mark, special=True, normalized=False) for mark in (BEGIN, END, *further)]
        )
        if odd := [token for token, number in pairs.added.items() if tokenizer.token_to_id(token) != number]:
            raise UnsupportedModel(f"added tokens whose ids leave gaps: {', '.join(odd)}")
        pattern = rf"<\|startoftext\|>|<\|endoftext\|>|{WORDS}"
    else:
        # A mark whose upper case is the letter Ι: where case is ignored, it falls between all classes.
        tokenizer.normalizer = normalizers.Replace("\u0345", " ")
        pattern = f"(?i:{WORDS})"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    note_marks(tokenizer, Marks(BEGIN, END))
    identity = json.dumps([dialect, pairs.vocabulary, pairs.merges, pairs.added], sort_keys=True)
    return ClipVocabulary(tokenizer, identity, openais=pairs.is_openais)


def _pairs(lines: list[str]) -> list[tuple[str, str]]:
    """The merges of a listing; its first line is a heading."""
    pairs = (line.split() for line in lines[1:])
    return [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]


def byte_characters() -> dict[int, str]:
    """Each byte as a printable character: itself where it is one, otherwise the next free one from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    shifted = {byte: chr(256 + number) for number, byte in enumerate(others)}
    return {byte: chr(byte) for byte in printable} | shifted
