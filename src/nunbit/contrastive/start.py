"""Where a run starts: a model that is there, or a new one with a vocabulary of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nunbit.clip import Clip, ClipConfig
from nunbit.config import to_plain
from nunbit.contrastive.clip_student import ClipStudent
from nunbit.contrastive.config import ModelConfig, ScratchConfig, TowerSize
from nunbit.contrastive.starter_student import StarterStudent
from nunbit.contrastive.students import Student
from nunbit.loading import is_starter, locate
from nunbit.preprocessing import Preprocessing
from nunbit.pretrained.encoder import load_clip
from nunbit.pretrained.parts import Settings
from nunbit.text import Tokenizer
from nunbit.text.learned import learn_tokenizer
from nunbit.text_encoder import TextConfig
from nunbit.vision_encoder import VitConfig

_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def make_student(config: ModelConfig, texts: Iterable[str], *, name: str, license: str) -> Student:
    """Build what will learn.

    Args:
        config: Where it starts.
        texts: Training texts, of which a new model learns its vocabulary.
        name: What the trained model will be called.
        license: Of the trained weights; empty: that of the start.

    Raises:
        ModelNotFound: There is no such start.
        ConfigError: A setting that this start cannot have.
    """
    if config.scratch is not None:
        model, settings = new_model(config.scratch, config.objective or "softmax", texts)
        return ClipStudent(model, settings, config, license=license, name=name)
    assert config.start is not None  # the configuration was checked
    start = locate(config.start)
    if is_starter(start):
        return StarterStudent(start, config, license=license, name=name)
    towers: Any = load_clip(start, name).towers
    return ClipStudent(towers.model, towers.settings, config, license=license or towers.license, name=name)


def new_model(scratch: ScratchConfig, objective: Any, texts: Iterable[str]) -> tuple[Clip, Settings]:
    """A dual encoder of CLIP's form with random weights, drawn from torch's generator as it stands."""
    tokenizer = learn_tokenizer(texts, vocabulary_size=scratch.vocabulary_size, context_length=scratch.context_length)
    config = _clip_config(scratch, objective, tokenizer)
    preprocessing = Preprocessing(
        image_size=scratch.image_size,
        crop_fraction=1.0,
        mean=_MEAN,
        std=_STD,
        resize=scratch.resize,
        interpolation="bicubic",
    )
    return Clip(config), Settings(config, preprocessing, tokenizer)


def _clip_config(scratch: ScratchConfig, objective: Any, tokenizer: Tokenizer) -> ClipConfig:
    return ClipConfig(
        vision=VitConfig(
            image_size=scratch.image_size,
            patch_size=scratch.patch_size,
            **_blocks(scratch.vision),
            class_token=True,
            patch_bias=False,
            pre_norm=True,
            pooling=scratch.pooling,
            projection_size=scratch.embedding_size,
        ),
        text=TextConfig(
            vocab_size=tokenizer.vocabulary.highest_id() + 1,
            max_position_embeddings=scratch.context_length,
            **_blocks(scratch.text),
            causal=True,
            pooling="end_token",
            end_token_id=tokenizer.config.end_token_id,
            projection_size=scratch.embedding_size,
            projection_bias=False,
        ),
        objective=objective,
    )


def _blocks(size: TowerSize) -> dict[str, Any]:
    """What both towers' configurations say about their blocks."""
    sizes: dict[str, Any] = to_plain(size)
    return sizes | {"intermediate_size": 4 * size.hidden_size, "hidden_act": "gelu", "layer_norm_eps": 1e-5}
