"""What curation needs of an encoder: two functions, so that it works with any, and in tests without one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nunbit.curate.kept_facts import KeptEmbeddings
from nunbit.encode import Encoder, encode_stream
from nunbit.types import Rejected

if TYPE_CHECKING:
    import numpy.typing as npt

    from nunbit.types import FloatArray

_TEXTS = 1024  # a call


@dataclass(frozen=True, slots=True)
class Embedder:
    """Embeds pictures and texts into one space.

    Attributes:
        identity: Of what embeds: the same for the same embeddings.
        images: N paths or bytes → for each, in order, its unit row (D,) or why it has none.
        texts: N texts → (N, D) float32, unit rows.
    """

    identity: str
    images: Callable[[Sequence[str | bytes]], Iterator[FloatArray | Rejected]]
    texts: Callable[[Sequence[str]], FloatArray]


def encoder_embedder(encoder: Encoder, progress: Callable[[int, int], None] | None = None) -> Embedder:
    """Use an encoder.

    Args:
        encoder: Any.
        progress: Called with (done, total) pictures.
    """

    def images(sources: Sequence[str | bytes]) -> Iterator[FloatArray | Rejected]:
        for done, item in enumerate(encode_stream(encoder, sources), start=1):
            yield item if isinstance(item, Rejected) else item.embedding
            if progress:
                progress(done, len(sources))

    return Embedder(encoder.fingerprint, images, encoder.encode_text)


def embed_pictures(
    embedder: Embedder, images: Sequence[str | bytes], hashes: Sequence[str], kept: KeptEmbeddings
) -> dict[int, npt.NDArray[np.float16] | Rejected]:
    """Embed pictures, each only once in its life.

    Args:
        embedder: What embeds.
        images: N paths or bytes.
        hashes: Their N sha256.
        kept: What was embedded before; what is embedded now is added.

    Returns:
        Place in ``images`` → (D,) float16, or why there is none.
    """
    found: dict[int, npt.NDArray[np.float16] | Rejected] = {}
    new = [place for place, sha256 in enumerate(hashes) if kept.find(sha256) is None]
    for place, row in zip(new, embedder.images([images[place] for place in new]) if new else (), strict=True):
        if isinstance(row, Rejected):
            found[place] = row
        else:
            kept.keep(hashes[place], row.astype(np.float16))
    for place, sha256 in enumerate(hashes):
        known = kept.find(sha256)
        if known is not None:
            found[place] = known
    return found


def text_similarities(
    embedder: Embedder, texts: Sequence[tuple[int, str]], embeddings: npt.NDArray[np.float16]
) -> npt.NDArray[np.float32]:
    """Compare texts with their pictures.

    Args:
        embedder: What embeds.
        texts: P pairs of a row of ``embeddings`` and a text.
        embeddings: (N, D) float16, of pictures.

    Returns:
        (P,) float32, cosines.
    """
    found = [np.empty(0, np.float32)]
    for at in range(0, len(texts), _TEXTS):
        part = texts[at : at + _TEXTS]
        different = sorted({text for _, text in part})
        places = {text: place for place, text in enumerate(different)}
        rows = embedder.texts(different)[[places[text] for _, text in part]]  # (P, D)
        found.append((rows * embeddings[[row for row, _ in part]].astype(np.float32)).sum(1))
    return np.concatenate(found)
