"""Records of pictures and texts → fewer, better ones, with a reason for each that went."""

from nunbit.curate.curation import Curation, Step, curate
from nunbit.curate.embedder import Embedder, encoder_embedder
from nunbit.curate.pool import Dropped
from nunbit.curate.rules import CurationConfig, make_rules

__all__ = ["Curation", "CurationConfig", "Dropped", "Embedder", "Step", "curate", "encoder_embedder", "make_rules"]
