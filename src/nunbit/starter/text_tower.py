"""Universal Sentence Encoder, multilingual (v3): the starter's text tower, in NumPy.

Sub-word tokens → table of embeddings → three convolutional branches over n-grams → mean over √length → residual
feed-forward head. Sixteen languages share the space, Korean and English among them.

Shapes: N texts, T tokens of all texts laid end to end, D width 512, C branch width 256.
Papers: Universal Sentence Encoder, arXiv 1803.11175; Multilingual Universal Sentence Encoder, arXiv 1907.04307.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nunbit.errors import WeightsError

if TYPE_CHECKING:
    import numpy.typing as npt

    from nunbit.types import FloatArray

EMBEDDING_SIZE = 512
BRANCH_SIZE = 256
NGRAM_OFFSETS = {2: (0, 1), 3: (-1, 0, 1), 5: (-2, -1, 0, 1, 2)}
"""For each n-gram order, the neighbors that one position sees."""

TABLE_CHUNKS = 17
"""The table is published in 17 interleaved parts, each quantized with a scale and an offset of its own."""

TOKENS_PER_BATCH = 2048
MAX_TOKENS = 512


class SentenceEncoder:
    """Texts → unit vectors of 512 numbers.

    Args:
        vocabulary: SentencePiece model file.
        weights: ``.npz`` of the published quantized weights; opened without pickle.

    Raises:
        WeightsError: An array is missing.
    """

    def __init__(self, vocabulary: Path, weights: Path) -> None:
        from sentencepiece import SentencePieceProcessor

        self._tokenizer = SentencePieceProcessor(model_file=str(vocabulary))
        with np.load(weights, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        try:
            rows = [arrays.pop(f"q{chunk + 1}") for chunk in range(TABLE_CHUNKS)]
            # token t lies in chunk t % 17 at row t // 17; uint8 rows keep the table at 65 MB
            self._table = np.stack(rows, axis=1).reshape(-1, EMBEDDING_SIZE)
            self._weights = {name: array.astype(np.float32) for name, array in arrays.items()}
            self._epsilon = float(arrays["eps"])
        except KeyError as error:
            raise WeightsError(f"{weights.name} lacks the array {error}") from error

    def tokenize(self, text: str) -> list[int]:
        """Sub-word ids with begin and end marks; a longer text is cut at 512 tokens, keeping the end mark."""
        ids: list[int] = self._tokenizer.encode(text, add_bos=True, add_eos=True)
        return ids if len(ids) <= MAX_TOKENS else [*ids[: MAX_TOKENS - 1], ids[-1]]

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Embed texts.

        Args:
            texts: N texts of any length, in any of the sixteen languages.

        Returns:
            (N, 512) float32, unit rows.
        """
        out = np.empty((len(texts), EMBEDDING_SIZE), np.float32)
        for rows, tokens in _batches([self.tokenize(text) for text in texts]):
            out[rows] = self._encode_batch(tokens)
        return out

    def _encode_batch(self, tokens: list[list[int]]) -> FloatArray:
        w = self._weights
        lengths = np.array([len(ids) for ids in tokens])
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        ids = np.concatenate([np.asarray(row) for row in tokens])  # (T,)
        chunk = ids % TABLE_CHUNKS
        embedded = self._table[ids] * w["scale"][chunk, None] + w["lo"][chunk, None]  # (T, 512)
        first = np.repeat(starts, lengths)
        last = first + np.repeat(lengths, lengths) - 1
        projected = np.concatenate([embedded @ w[f"proj{n}"] + w[f"proj_b{n}"] for n in NGRAM_OFFSETS], axis=1)
        # one norm over all three branches together, as the published model has it: (T, 768)
        gain, bias = (np.concatenate([w[f"{name}{n}"] for n in NGRAM_OFFSETS]) for name in ("ln_g", "ln_b"))
        projected = _layer_norm(projected, gain, bias, self._epsilon)
        inputs = np.split(projected, len(NGRAM_OFFSETS), axis=1)  # three of (T, 256)
        branches = [self._branch(n, x, first, last) for n, x in zip(NGRAM_OFFSETS, inputs, strict=True)]
        features = [embedded, *branches]
        normed = _layer_norm(np.concatenate(features, axis=1), w["ln_g"], w["ln_b"], self._epsilon)  # (T, 1280)
        pooled = np.add.reduceat(normed, starts, axis=0) @ w["cnn_W"] + lengths[:, None] * w["cnn_b"]
        return self._head((pooled / np.sqrt(lengths)[:, None]).astype(np.float32))  # (N, 512)

    def _branch(
        self, order: int, x: FloatArray, first: npt.NDArray[np.int64], last: npt.NDArray[np.int64]
    ) -> FloatArray:
        """Two residual convolutions over (T, 256) that never look beyond a text's ends."""
        w = self._weights
        position = np.arange(len(x))[:, None] + np.array(NGRAM_OFFSETS[order])  # (T, order)
        outside = (position < first[:, None]) | (position > last[:, None])
        neighbors = np.where(outside, len(x), position)
        for layer in (1, 2):
            padded = np.concatenate([x, np.zeros((1, BRANCH_SIZE), np.float32)])  # last row: beyond the ends
            window = padded[neighbors].reshape(len(x), -1)  # (T, order * 256)
            x = x + np.maximum(window @ w[f"w{layer}_{order}"] + w[f"b{layer}_{order}"], 0)
        return x

    def _head(self, pooled: FloatArray) -> FloatArray:
        w = self._weights
        first = np.maximum(pooled @ w["d0"], 0)
        second = np.maximum(pooled @ w["p1"] + first @ w["d1"], 0)
        third = np.maximum(second @ w["d2"], 0)
        out = np.tanh(second @ w["p3"] + third @ w["d3"])
        unit: FloatArray = out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)
        return unit


def _layer_norm(x: FloatArray, gain: FloatArray, bias: FloatArray, epsilon: float) -> FloatArray:
    centered = x - x.mean(axis=1, keepdims=True)
    variance = np.mean(centered**2, axis=1, keepdims=True)
    normed: FloatArray = centered / np.sqrt(variance + epsilon) * gain + bias
    return normed


def _batches(tokens: list[list[int]]) -> Iterator[tuple[slice, list[list[int]]]]:
    """Group consecutive texts so that a batch holds about ``TOKENS_PER_BATCH`` tokens: memory stays bounded."""
    start = total = 0
    for row, ids in enumerate(tokens):
        if row > start and total + len(ids) > TOKENS_PER_BATCH:
            yield slice(start, row), tokens[start:row]
            start, total = row, 0
        total += len(ids)
    if tokens:
        yield slice(start, len(tokens)), tokens[start:]
