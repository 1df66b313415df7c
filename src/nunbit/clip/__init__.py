"""The dual encoder: CLIP, SigLIP and SigLIP 2."""

from nunbit.clip.config import ClipConfig
from nunbit.clip.model import Clip, ClipOutput

__all__ = ["Clip", "ClipConfig", "ClipOutput"]
