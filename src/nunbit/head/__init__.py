"""Heads: what was learned from a few pictures, as a small folder bound to its encoder; they need no torch."""

from nunbit.head.files import describe_head, is_head, load_head, save_head
from nunbit.head.head import Cache, Calibration, FeatureAdapter, Head
from nunbit.head.unknown import Unknown

__all__ = [
    "Cache",
    "Calibration",
    "FeatureAdapter",
    "Head",
    "Unknown",
    "describe_head",
    "is_head",
    "load_head",
    "save_head",
]
