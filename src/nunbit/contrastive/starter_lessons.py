"""What the starter's bridge learns from: class words, captioned photographs, captions of one picture.

All of it is read once and kept as towers' outputs (locked towers), so that training takes seconds.

Shapes: N photographs, G groups, F features 1280, C classes 1000, S sentence width 512.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nunbit.data import CaptionedPhoto, read_caption_groups, read_captioned_photos
from nunbit.encode import DEFAULT_BATCH_SIZE
from nunbit.errors import ModelNotFound
from nunbit.images import open_image
from nunbit.starter.model import PREPROCESSING, Starter
from nunbit.wordnet import read_nouns


@dataclass(frozen=True, slots=True)
class LessonSources:
    """Folders that the lessons are read from.

    Attributes:
        coco: Holds ``captions_boxes.jsonl``, ``images/`` and ``captions_val2017.json``.
        wordnet: WordNet 3.0's database files.
    """

    coco: Path
    wordnet: Path


@dataclass(frozen=True, slots=True)
class Lessons:
    """Cached tower outputs.

    Attributes:
        class_texts: For each of the 1,000 classes, (variants, S) sentence embeddings; the first row is the plain mean
            of its names.
        class_similarity: (C, C) cosines between the classes' weight vectors: which classes look alike.
        photo_features: (N, F).
        photo_logits: (N, C).
        photo_captions: For each photograph, (captions, S).
        caption_groups: (G, 5, S), five captions of one picture that is in no other lesson and in no evaluation.
    """

    class_texts: tuple[Tensor, ...]
    class_similarity: Tensor
    photo_features: Tensor
    photo_logits: Tensor
    photo_captions: tuple[Tensor, ...]
    caption_groups: Tensor


def read_lessons(sources: LessonSources, starter: Starter) -> Lessons:
    """Read and encode every lesson; about a minute on two cores."""
    photos = read_captioned_photos(sources.coco)
    teaching = [photo for photo in photos if photo.split == "train"]
    features, logits = encode_photos(starter, [photo.path for photo in teaching])
    held = {photo.path.stem for photo in photos}
    groups = read_caption_groups(sources.coco / "captions_val2017.json", exclude=held)
    sentences = starter.text_tower.encode([caption for group in groups for caption in group])
    weight = starter.picture_tower.classifier.weight.detach()
    direction = torch.nn.functional.normalize(weight - weight.mean(0), dim=-1)
    return Lessons(
        class_texts=_class_texts(sources.wordnet, starter),
        class_similarity=direction @ direction.T,
        photo_features=features,
        photo_logits=logits,
        photo_captions=_caption_sentences(starter, teaching),
        caption_groups=torch.from_numpy(sentences).reshape(len(groups), 5, -1),
    )


def encode_photos(starter: Starter, paths: Sequence[Path]) -> tuple[Tensor, Tensor]:
    """Features (N, F) and logits (N, C) of photographs."""
    pairs = []
    for start in range(0, len(paths), DEFAULT_BATCH_SIZE):
        pictures = [PREPROCESSING(open_image(path)[0]) for path in paths[start : start + DEFAULT_BATCH_SIZE]]
        pairs.append(starter.features(np.stack(pictures)))
    features, logits = (torch.from_numpy(np.concatenate(parts)) for parts in zip(*pairs, strict=True))
    return features, logits


def imagenet_offsets() -> list[str]:
    """WordNet offsets of ImageNet's classes, in the order of the classifier; from timm's data file.

    Raises:
        ModelNotFound: timm is not installed. It is needed for training only, and is not imported.
    """
    spec = find_spec("timm")
    if spec is None or spec.origin is None:
        message = "timm is not installed, and training needs its list of ImageNet's classes"
        raise ModelNotFound(message, hint="pip install 'nunbit[train]'")
    listing = Path(spec.origin).parent / "data" / "_info" / "imagenet_synsets.txt"
    return [line.lstrip("n") for line in listing.read_text(encoding="utf-8").split()]


def _class_texts(wordnet: Path, starter: Starter) -> tuple[Tensor, ...]:
    nouns = read_nouns(wordnet)
    classes = [nouns[offset] for offset in imagenet_offsets()]
    variants: list[list[str]] = []
    for noun in classes:
        parents = [nouns[parent].lemmas[0] for parent in noun.hypernyms]
        names = list(noun.lemmas)
        photos = [f"a photo of a {name}" for name in names]
        kinds = [f"{names[0]}, a kind of {parent}" for parent in parents]
        variants.append([*names, *photos, noun.gloss, *kinds])
    sentences = torch.from_numpy(starter.text_tower.encode([text for texts in variants for text in texts]))
    split = torch.split(sentences, [len(texts) for texts in variants])
    means = [rows[: len(noun.lemmas)].mean(0, keepdim=True) for rows, noun in zip(split, classes, strict=True)]
    return tuple(torch.cat(pair) for pair in zip(means, split, strict=True))


def _caption_sentences(starter: Starter, photos: Sequence[CaptionedPhoto]) -> tuple[Tensor, ...]:
    sentences = starter.text_tower.encode([caption for photo in photos for caption in photo.captions])
    return torch.split(torch.from_numpy(sentences), [len(photo.captions) for photo in photos])
