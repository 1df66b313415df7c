"""What was read before is not read again: keys and values of conversations that begin alike.

Shapes: T tokens, K looks, Q tokens of a look, H heads, C channels of a head.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from nunbit.language_model.transformers_model import import_transformers
from nunbit.vlm.conversation import Encoded
from nunbit.vlm.model import IMAGE_TOKEN_ID

if TYPE_CHECKING:
    from torch import Tensor

    from nunbit.vlm.batching import Sample

Key: TypeAlias = int | tuple[bytes, int]
"""What stands at a place: a token's id, or which token of which look."""


def keys_of(sample: Sample) -> list[Key]:
    """What stands at each of a sample's T places; two places with the same key and the same keys before are read alike.

    A look is told by its pixels, and by the question where the projector reads that beside it.
    """
    pictures = sample.pixel_values if sample.image_features is None else sample.image_features
    looks = [] if pictures is None else list(pictures)
    names = [_name(look, sample) for look in looks]
    ids = sample.encoded.input_ids
    tokens = ids.count(IMAGE_TOKEN_ID) // len(names) if names else 0
    keys: list[Key] = []
    place = 0
    for number in ids:
        if number == IMAGE_TOKEN_ID:
            keys.append((names[place // tokens], place % tokens))
            place += 1
        else:
            keys.append(number)
    return keys


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    keys: tuple[Key, ...]
    layers: tuple[tuple[Any, Any], ...]  # keys and values, (1, H, T, C) each


class PrefixCache:
    """Keys and values of the conversations that came last.

    Args:
        kept: How many. A token of SmolLM2 135M takes 45 KB, one of a Llama 7B in half precision 512 KB.
    """

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._entries: list[_Entry] = []

    def take(self, keys: Sequence[Key]) -> tuple[Any, int]:
        """A cache with as much of a conversation as was read before.

        Args:
            keys: Of the conversation.

        Returns:
            A cache of `transformers`, which may be written to; None where nothing was read before. And how many tokens
            are in it: less than all, since the last one has to be asked what follows it, and no picture in part.
        """
        shared = [shared_prefix(keys, entry.keys) for entry in self._entries]
        length = max(shared, default=0)
        if length == 0:
            return None, 0
        entry = self._entries[shared.index(length)]
        cache = import_transformers().DynamicCache()
        for number, (layer_keys, layer_values) in enumerate(entry.layers):
            cache.update(layer_keys[:, :, :length], layer_values[:, :, :length], number)
        return cache, length

    def keep(self, keys: Sequence[Key], cache: Any) -> None:
        """Remember what was read.

        Args:
            keys: Of the T tokens that are in the cache.
            cache: Of `transformers`, of one conversation; it is not written to any more. One that does not hold all
                tokens (sliding windows, state spaces) is of no use later, and not kept.
        """
        plain = import_transformers().cache_utils.DynamicLayer
        if any(type(layer) is not plain or layer.get_seq_length() != len(keys) for layer in cache.layers):
            return
        told = tuple(keys)
        others = [entry for entry in self._entries if told[: len(entry.keys)] != entry.keys]
        layers = tuple((layer.keys, layer.values) for layer in cache.layers)
        self._entries = [_Entry(told, layers), *others][: self._kept]


def shared_prefix(keys: Sequence[Key], before: Sequence[Key]) -> int:
    """How much of a conversation was read before: less than all of it, and no look in part."""
    most = max(0, min(len(keys) - 1, len(before)))
    length = next((place for place in range(most) if keys[place] != before[place]), most)
    while length and _inside(keys[length]):
        length -= 1
    return length


def rest_of(sample: Sample, read: int) -> Sample:
    """What of a sample stands behind its first tokens; no look is cut."""
    ids, labels = sample.encoded.input_ids, sample.encoded.labels
    places = ids.count(IMAGE_TOKEN_ID)
    looks = sample.looks * ids[read:].count(IMAGE_TOKEN_ID) // places if places else 0
    pixels, features = sample.pixel_values, sample.image_features
    return replace(
        sample,
        encoded=Encoded(ids[read:], labels[read:]),
        pixel_values=pixels[len(pixels) - looks :] if pixels is not None and looks else None,
        image_features=features[len(features) - looks :] if features is not None and looks else None,
    )


def _inside(key: Key) -> bool:
    """It is a token of a look, and not its first: a look is read as a whole."""
    return isinstance(key, tuple) and key[1] > 0


def _name(look: Tensor, sample: Sample) -> bytes:
    told = (sample.image_features is None, sample.instruction, look.dtype, tuple(look.shape))
    numbers = look.contiguous().cpu().view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(repr(told).encode() + numbers).digest()
