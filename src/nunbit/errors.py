"""Every error that nunbit raises on purpose, as one tree.

    NunbitError
    ├── UsageError            what the caller asked for cannot be meant (labels, top_k, filter, path)
    │   └── ConfigError       a setting that does not exist, is missing, or has a value of the wrong kind
    ├── ModelError            a model cannot be found, or its files are not what they should be
    │   ├── ModelNotFound     no such name, folder or hub id; or the hub cannot be reached
    │   ├── UnsupportedModel  a model folder whose architecture, tokenizer or preprocessing is not known here
    │   ├── WeightsError      wrong checksum, missing, unexpected or misshapen tensors
    │   ├── EndpointError     a model behind an endpoint does not answer, or refuses to
    │   ├── EngineRefused     an engine cannot run a model, or does not agree with torch
    │   └── DriftError        a model answers otherwise than its golden outputs say, or its export than the model does
    ├── ImageError            one picture that cannot be used; carries a short ``reason``
    ├── TrainingError         a run that cannot go on as it is
    └── StoreError            a folder of an index or of a run
        ├── StoreNotFound     there is no index there
        ├── StoreBusy         another process is writing to it
        ├── StoreFull         the disk is full; what was committed before is safe
        └── EncoderMismatch   it was made with another encoder

A message says what happened and what was expected; ``hint`` says how to mend it. The command line prints the
two on one line each and exits with ``exit_code``. `NunbitWarning` is no error: the work goes on, but the user should
know (a text was cut, a picture profile was ignored).
"""

from __future__ import annotations

from typing import ClassVar


class NunbitError(Exception):
    """Base of all errors that a user can act upon.

    Args:
        message: What happened and what was expected, as one line.
        hint: How to mend it, as one line; empty when there is nothing to add.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(NunbitError):
    """The call cannot be meant as written: an empty label, a filter on a column that does not exist."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting that does not exist, is missing, or has a value of the wrong kind."""


class TrainingError(NunbitError):
    """A run cannot go on as it is: its loss is no number any more, or it has no data."""


class ModelError(NunbitError):
    """A model cannot be used."""


class ModelNotFound(ModelError):
    """No model by this name, no such folder, or the hub cannot be reached."""


class UnsupportedModel(ModelError):
    """The folder holds a model whose architecture, tokenizer or preprocessing is not known here.

    It is refused: guessing one of them gives an encoder that answers, wrongly.
    """


class WeightsError(ModelError):
    """Weight files with a wrong checksum or with missing, unexpected or misshapen tensors."""


class EndpointError(ModelError):
    """A model behind an endpoint does not answer, or with a refusal: its key, its name, its limits."""


class EngineRefused(ModelError):
    """The engine that was asked for cannot run this model on this machine, or its answers differ from torch's."""


class DriftError(ModelError):
    """A model answers otherwise than its golden outputs say, or an export of it otherwise than the model does."""


class ImageError(NunbitError):
    """One picture that cannot be used.

    Args:
        reason: A short, stable phrase for ledgers and counts, such as ``"truncated"`` or ``"not an image"``.
        message: What was found in this very file.
    """

    def __init__(self, reason: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class StoreError(NunbitError):
    """An index folder cannot be used."""


class StoreNotFound(StoreError):
    """There is no index at this place."""


class StoreBusy(StoreError):
    """Another process is writing to this index."""


class StoreFull(StoreError):
    """The disk is full. Whatever was committed before is safe, and running again continues."""


class EncoderMismatch(StoreError):
    """The index was made with another encoder than the one it is opened with."""


class NunbitWarning(UserWarning):
    """The work goes on, with something that the user should know about."""
