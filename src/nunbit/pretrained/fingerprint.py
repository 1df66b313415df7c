"""One number for all that changes an answer: it travels with the weights, the index and the exports.

Two encoders with the same fingerprint give the same embeddings, up to what `nunbit.engine` lets an engine differ; an
index refuses one with another. The names and the arrangement of tensors in a file have no part in it, but what a format
settles has: `transformers` and open_clip cut a CLIP's texts, and resize its positions, a little differently.
"""

from __future__ import annotations

import hashlib
import json

import torch
from torch import nn

from nunbit.config import to_plain
from nunbit.pretrained.parts import Settings


def fingerprint(module: nn.Module, settings: Settings) -> str:
    """sha256 (hex) over architecture, activation, weights, precision, tokenizer, padding and preprocessing.

    Args:
        module: The model as it computes; its dtype is the precision.
        settings: The rest.
    """
    digest = hashlib.sha256()
    answer_changers = {
        "model": to_plain(settings.config),
        "preprocessing": settings.preprocessing.to_dict(),
        "tokenizer": to_plain(settings.tokenizer.config),
        "vocabulary": settings.tokenizer.vocabulary.digest(),
    }
    digest.update(json.dumps(answer_changers, sort_keys=True).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
