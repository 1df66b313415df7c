"""What the tests of label sets share: an encoder that hashes texts, with clusters by first word."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from index_fakes import unit
from nunbit.encode import Encoder, EncoderInfo
from nunbit.preprocessing import Preprocessing

WIDTH = 32


class WordTowers:
    """A text is its first word plus half of the rest, each a random direction; counts what it is asked."""

    logit_scale = 20.0

    def __init__(self) -> None:
        self.encoded = 0
        self.fingerprint = ""
        self.logit_bias: float | None = None

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        self.encoded += len(texts)
        rows = []
        for text in texts:
            first, _, rest = text.partition(" ")
            rows.append(direction(first) + 0.5 * direction(rest))
        return unit(np.stack(rows))


def direction(word: str) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(word.encode())).normal(size=WIDTH)


def word_encoder(towers: WordTowers | None = None, fingerprint: str = "a" * 64, bias: float | None = None) -> Encoder:
    preprocessing = Preprocessing(6, 1.0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "squash", "bilinear")
    towers = towers or WordTowers()
    towers.fingerprint, towers.logit_bias = fingerprint, bias
    return Encoder(towers, EncoderInfo("words", WIDTH, preprocessing))
