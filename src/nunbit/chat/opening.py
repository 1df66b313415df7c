"""What a model is called → a talker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nunbit.errors import ModelNotFound

if TYPE_CHECKING:
    from nunbit.chat.messages import Talker


def open_talker(
    spec: str,
    *,
    key_variable: str | None = None,
    engine: str | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Talker:
    """Open a vision-language model.

    Args:
        spec: One of

            * ``"starter"``, the model that this package carries, or a model folder of this project;
            * a folder of `transformers`, of any model that takes pictures and texts, with safetensors;
            * an OpenAI-compatible endpoint with a model's name: ``https://api.example.com/v1#model``.
        key_variable: The environment variable that holds the key of an endpoint; None: no key is sent.
        engine: What computes folders of this project: ``auto``, ``torch``, ``openvino-fp32``, ``openvino-int8``;
            None: what ``$NUNBIT_ENGINE`` says, or ``auto``.
        tell: Told in a few words what takes long.

    Raises:
        ModelNotFound: Nothing by that name.
        UnsupportedModel: A folder with a model of another kind.
        WeightsError: The files are not what they should be.
        UsageError: The URL cannot be meant, or the variable is not set.
    """
    from nunbit.chat.local import is_local, open_local
    from nunbit.chat.remote import RemoteTalker, is_endpoint
    from nunbit.chat.transformers_talker import open_transformers

    if is_endpoint(spec):
        return RemoteTalker(spec, key_variable=key_variable)
    if is_local(spec):
        return open_local(spec, engine, tell)
    if (Path(spec) / "config.json").is_file():
        return open_transformers(spec)
    hint = "starter, a model folder, or an endpoint with a model's name: https://api.example.com/v1#model"
    raise ModelNotFound(f"there is no vision-language model {spec!r}", hint=hint)
