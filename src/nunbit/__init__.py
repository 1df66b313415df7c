"""nunbit (눈빛): give a service eyes. Recognition and search over your own pictures and words.

Example:
    >>> import nunbit
    >>> encoder = nunbit.load("starter")
    >>> nunbit.recognize(encoder, ["a.jpg"], classnames=["cat", "dog"])
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nunbit.encode import Encoder
    from nunbit.errors import NunbitError
    from nunbit.index import Index
    from nunbit.loading import load, load_classifier
    from nunbit.recognition import recognize

__version__ = "0.1.0"
__all__ = ["Encoder", "Index", "NunbitError", "__version__", "load", "load_classifier", "recognize"]

_HOMES = {
    "Encoder": "nunbit.encode",
    "Index": "nunbit.index",
    "NunbitError": "nunbit.errors",
    "load": "nunbit.loading",
    "load_classifier": "nunbit.loading",
    "recognize": "nunbit.recognition",
}


def __getattr__(name: str) -> Any:
    """Import on first use: ``import nunbit`` and ``nunbit --help`` stay fast."""
    if name not in _HOMES:
        raise AttributeError(f"module 'nunbit' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
