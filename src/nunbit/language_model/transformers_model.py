"""Language models of `transformers`: from a configuration, and from a local folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from nunbit.errors import ConfigError, UnsupportedModel, UsageError, WeightsError
from nunbit.language_model.model import LanguageModel, LanguageTokenizer
from nunbit.pretrained.parts import read_json
from nunbit.pretrained.weights import find_weights
from nunbit.torchvision_import import import_torchvision

Precision: TypeAlias = Literal["float32", "bfloat16", "float16"]

_LISTED = 5  # tensors that are named in a message
_LOCAL = {"local_files_only": True, "trust_remote_code": False}


def import_transformers() -> Any:
    """Import `transformers`.

    Raises:
        UnsupportedModel: It is not installed.
    """
    import_torchvision()
    try:
        import transformers
    except ImportError as error:
        hint = "pip install 'nunbit[vlm]'"
        raise UnsupportedModel(f"language models need transformers: {error}", hint=hint) from error
    return transformers


def make_language_model(settings: Mapping[str, Any], tokenizer: LanguageTokenizer | None = None) -> LanguageModel:
    """Build a language model with random weights.

    Args:
        settings: What a ``config.json`` of `transformers` holds: ``model_type`` and sizes.
        tokenizer: Its tokenizer.

    Raises:
        ConfigError: No model type, or one that is not known; sizes that do not fit.

    Example:
        >>> sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        >>> make_language_model({"model_type": "llama", "vocab_size": 100, **sizes}).hidden_size
        32
    """
    config = make_config(settings)
    return LanguageModel(_class_for(config).from_config(config), tokenizer)


def make_config(settings: Mapping[str, Any]) -> Any:
    """A configuration of `transformers` from plain values, as `make_language_model` takes them."""
    transformers = import_transformers()
    rest = dict(settings)
    model_type = rest.pop("model_type", None)
    if model_type not in transformers.CONFIG_MAPPING:
        raise ConfigError(f"model_type is {model_type!r}, which transformers {transformers.__version__} does not know")
    try:
        return transformers.CONFIG_MAPPING[model_type](**rest)
    except _refusals() as error:
        raise ConfigError(f"{model_type}: {_one_line(error)}") from error


def fill_language_model(
    settings: Mapping[str, Any], tensors: Mapping[str, Any], tokenizer: LanguageTokenizer | None, *, where: str
) -> LanguageModel:
    """Build a language model, in float32, from tensors that something else held.

    Args:
        settings: As `make_language_model` takes them.
        tensors: All of its weights by their names in `transformers`.
        tokenizer: Its tokenizer.
        where: The folder, for messages.

    Raises:
        ConfigError: As `make_language_model`.
        WeightsError: Missing, unexpected or misshapen tensors.
    """
    config = make_config(settings)
    cls = _class_for(config)._model_mapping[type(config)]
    return LanguageModel(
        load_model(cls, None, "float32", where=where, config=config, state_dict=dict(tensors)), tokenizer
    )


def read_folder(folder: Path, precision: Precision) -> LanguageModel:
    """Read a folder as ``save_pretrained`` of `transformers` writes it.

    Raises:
        UnsupportedModel: No language model, a kind that needs code of its own, no safetensors, or no tokenizer.
        WeightsError: Missing, unexpected or misshapen tensors.
    """
    transformers = import_transformers()
    model_type = read_json(folder / "config.json").get("model_type")
    if model_type not in transformers.CONFIG_MAPPING:
        hint = "code that a model folder brings along is never run"
        message = f"{folder}: transformers {transformers.__version__} does not know the model type {model_type!r}"
        raise UnsupportedModel(message, hint=hint)
    find_weights(folder, ("model.safetensors",))  # pickles and incomplete folders are refused before anything is read
    with _quiet():
        try:
            config = transformers.AutoConfig.from_pretrained(folder, **_LOCAL)
        except _refusals() as error:
            raise UnsupportedModel(f"{folder / 'config.json'}: {_one_line(error)}") from error
        model = load_model(_class_for(config), folder, precision, where=str(folder), config=config, **_LOCAL)
    return LanguageModel(model, read_tokenizer_folder(folder))


def read_tokenizer_folder(folder: Path) -> Any:
    """The tokenizer of a folder, as ``save_pretrained`` of `transformers` writes it.

    Raises:
        UnsupportedModel: There is none that can be read.
    """
    transformers = import_transformers()
    with _quiet():
        try:
            return transformers.AutoTokenizer.from_pretrained(folder, **_LOCAL)
        except (OSError, ValueError, TypeError, ImportError) as error:
            raise UnsupportedModel(f"{folder} has no tokenizer that can be read: {_one_line(error)}") from error


def load_model(cls: Any, source: Path | None, precision: Precision, *, where: str, **options: Any) -> Any:
    """Fill a model of `transformers` with weights, all of them.

    Args:
        cls: Its class.
        source: A folder; None when the options hold ``state_dict``.
        precision: What it computes in.
        where: The folder or file, for messages.
        options: For its ``from_pretrained``.

    Raises:
        WeightsError: Missing, unexpected or misshapen tensors; `transformers` itself would go on with random ones.
    """
    import torch

    if precision not in get_args(Precision):
        raise UsageError(f"precision is {precision!r}", hint=f"one of: {', '.join(get_args(Precision))}")
    dtype = getattr(torch, precision)
    with _quiet():
        model, told = cls.from_pretrained(
            source,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are told of below, and none is taken
            **options,
        )
    kinds = {"missing": "missing_keys", "unexpected": "unexpected_keys", "misshapen": "mismatched_keys"}
    problems = {kind: sorted(map(_name, told[key])) for kind, key in kinds.items() if told[key]}
    if problems:
        listed = "; ".join(f"{len(names)} {kind}: {', '.join(names[:_LISTED])}" for kind, names in problems.items())
        hint = "the configuration and the weights belong to different models, or the file is cut short"
        raise WeightsError(f"{where}: the tensors do not fit the architecture: {listed}", hint=hint)
    return model.eval()


def _name(key: str | tuple[str, Any, Any]) -> str:
    return key if isinstance(key, str) else str(key[0])  # misshapen ones come with their shapes


def _class_for(config: Any) -> Any:
    transformers = import_transformers()
    choices = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    if type(config) not in choices._model_mapping:
        raise UnsupportedModel(f"a model of type {config.model_type!r} is no language model")
    return choices


@contextmanager
def _quiet() -> Iterator[None]:
    """No tables and progress bars of `transformers`: what matters of them is said in errors."""
    logging: Any = import_module("transformers.utils.logging")
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _refusals() -> tuple[type[Exception], ...]:
    """What `transformers` raises for a configuration that cannot be."""
    from huggingface_hub.errors import StrictDataclassError

    return TypeError, ValueError, StrictDataclassError


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
