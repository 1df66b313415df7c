"""Streams of picture-text records, and the captioned photographs that the starter learned from."""

from nunbit.data.captioned_photos import CaptionedPhoto, Split, read_caption_groups, read_captioned_photos

__all__ = ["CaptionedPhoto", "Split", "read_caption_groups", "read_captioned_photos"]
