"""Streams of picture-text records, and the captioned photographs that the starter learned from."""

from nunbit.data.captioned_photos import CaptionedPhoto, Split, read_caption_groups, read_captioned_photos
from nunbit.data.mixture import Mixture
from nunbit.data.opening import open_source
from nunbit.data.source import Shard, Source, SourceConfig

__all__ = [
    "CaptionedPhoto",
    "Mixture",
    "Shard",
    "Source",
    "SourceConfig",
    "Split",
    "open_source",
    "read_caption_groups",
    "read_captioned_photos",
]
