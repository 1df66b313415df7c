"""Heads: what was learned from a few pictures, as a small folder bound to its encoder; they need no torch."""

from nunbit.head.files import describe_head, encoder_of, is_head, load_head, save_head
from nunbit.head.head import AnswerSets, Cache, Calibration, FeatureAdapter, Head, Judged
from nunbit.head.unknown import Unknown

__all__ = [
    "AnswerSets",
    "Cache",
    "Calibration",
    "FeatureAdapter",
    "Head",
    "Judged",
    "Unknown",
    "describe_head",
    "encoder_of",
    "is_head",
    "load_head",
    "save_head",
]
