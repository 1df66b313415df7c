"""Answers of vision-language models, token by token.

::

    sample ─ prefix (what was read before) ─ decoding (keys and values) ─ sampling ─ answer text ─ pieces of text
"""

from nunbit.generate.config import GenerationConfig
from nunbit.generate.generator import Generator

__all__ = ["GenerationConfig", "Generator"]
