"""Contrastive and distillation losses: functions of embeddings; they know no model.

The formulas as they are written are in `plain`. The same values and gradients without an N x N matrix, on one process
or on several, come from `tiled`; a batch whose activations do not fit goes through `caching`.
"""

from nunbit.losses.caching import cached_backward
from nunbit.losses.distillation import feature_distillation, label_distillation, similarity_distillation
from nunbit.losses.identities import Identities, same
from nunbit.losses.plain import sigmoid_contrastive, softmax_contrastive
from nunbit.losses.ranks import Exchange, Ranks
from nunbit.losses.tiled import tiled_sigmoid, tiled_softmax

__all__ = [
    "Exchange",
    "Identities",
    "Ranks",
    "cached_backward",
    "feature_distillation",
    "label_distillation",
    "same",
    "sigmoid_contrastive",
    "similarity_distillation",
    "softmax_contrastive",
    "tiled_sigmoid",
    "tiled_softmax",
]
