"""Full-size CLIP models with random weights, made once, in folders that nunbit, open_clip and transformers open.

Usage: python benchmarks/random_models.py [NAME ...] [--scratch DIR] [--shared DIR]

Speed does not depend on what weights say, except where they say nothing: a bias of zero or a norm's weight of one is
an operation that a compiler may drop. Fresh models have exactly those, so here every bias and norm gets small random
numbers first. The three libraries are then compared on photographs and captions.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from nunbit.clip import ClipConfig

B32, B16, SMALL = "ViT-B-32-quickgelu", "ViT-B-16-quickgelu", "small"
NAMES = (B32, B16, SMALL)
AGREE = 0.999
"""The least mean cosine between libraries on the same inputs."""

TEXTS = ["a cat", "two dogs on a beach", "a red double-decker bus in front of an old house", "pizza"]


def configuration(name: str) -> ClipConfig:
    """The sizes of a model of `NAMES`.

    The small one has the sizes of TinyCLIP-ViT-8M-16-Text-3M (arXiv 2309.12314): 8 million weights look at pictures.
    """
    from nunbit.presets import architecture

    if name != SMALL:
        return architecture(name)
    base = architecture(B16)
    pictures: dict[str, Any] = {"hidden_size": 256, "num_hidden_layers": 10, "num_attention_heads": 4}
    texts: dict[str, Any] = {"hidden_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4}
    return replace(
        base,
        vision=replace(base.vision, intermediate_size=1024, **pictures),
        text=replace(base.text, intermediate_size=1024, **texts),
    )


def model_folder(name: str, scratch: Path, shared: Path) -> Path:
    """The folder of a model, made if it is not there."""
    folder = scratch / "models" / name
    if not (folder / "nunbit.json").is_file():
        make(name, folder, shared)
    return folder


def make(name: str, folder: Path, shared: Path) -> None:
    """Write a model with random weights, the same ones every time."""
    import torch
    from nunbit.clip import Clip
    from nunbit.pretrained.encoder import ClipTowers
    from nunbit.pretrained.image_processor import read_preprocess_cfg
    from nunbit.pretrained.parts import Settings
    from nunbit.pretrained.tokenizer_files import read_clip_tokenizer

    torch.manual_seed(0)
    config = configuration(name)
    model = Clip(config)
    with torch.no_grad():
        for weight_name, weight in model.named_parameters():
            if weight_name.endswith("bias"):
                weight.add_(0.02 * torch.randn_like(weight))
            elif weight.ndim == 1 and weight_name.endswith("weight"):  # of a norm
                weight.mul_(1 + 0.1 * torch.randn_like(weight))
    tokenizer = read_clip_tokenizer(shared / "golden" / "openai_clip", config, "open_clip")
    settings = Settings(config, read_preprocess_cfg({}, config.vision.image_size), tokenizer)
    folder.parent.mkdir(parents=True, exist_ok=True)
    ClipTowers(model, settings, license="MIT", name=name).save(folder)


def compare(folder: Path, shared: Path) -> list[str]:
    """Cosines of each library to nunbit on torch, over photographs and texts.

    Raises:
        SystemExit: They are not the same model.
    """
    import nunbit

    from peers import OpenClip, Transformers, as_square_pixels
    from side_by_side import cosines, photographs

    pixels = as_square_pixels(photographs(shared, 16), nunbit.load(folder, engine="torch"))
    reference = nunbit.load(folder, engine="torch")
    lines = []
    for peer in (OpenClip(folder), Transformers(folder)):
        for kind, ours, theirs in (
            ("pictures", reference.encode_pixels(pixels), peer.pictures(pixels)),
            ("texts", reference.encode_text(TEXTS), peer.texts(TEXTS)),
        ):
            found = cosines(np.asarray(ours), theirs)
            lines.append(f"{folder.name}: {peer.name}, {kind}: cosine {found.mean():.6f}, lowest {found.min():.6f}")
            if found.mean() < AGREE:
                raise SystemExit(f"{lines[-1]}: not the same model")
    return lines


def main() -> None:
    """Make the models and compare the three libraries."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--scratch", type=Path, default=default_scratch())
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    arguments = parser.parse_args()
    for name in arguments.names:
        folder = model_folder(name, arguments.scratch, arguments.shared)
        print("\n".join(compare(folder, arguments.shared)), flush=True)


def default_scratch() -> Path:
    """Where models and pictures are made when nobody says where."""
    return Path(tempfile.gettempdir(), "nunbit-benchmarks")


if __name__ == "__main__":
    main()
