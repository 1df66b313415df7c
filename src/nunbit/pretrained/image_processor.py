"""Preprocessing ↔ the files that describe it: ``preprocessor_config.json`` and open_clip's ``preprocess_cfg``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nunbit.errors import UnsupportedModel
from nunbit.preprocessing import AnyPreprocessing, FlexiblePreprocessing, Preprocessing
from nunbit.pretrained.parts import read_json, square

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
PREPROCESSOR = "preprocessor_config.json"
_HALF = (0.5, 0.5, 0.5)
_FILTERS = {1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers

# What a processor does where its file is silent, by its class without "Fast" and "Pil".
_CLIP_NUMBERS = {"image_mean": CLIP_MEAN, "image_std": CLIP_STD}
_CLIP = {
    "size": {"shortest_edge": 224},
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "resample": 3,
    **_CLIP_NUMBERS,
}
_SQUASH = {"size": {"height": 224, "width": 224}, "do_center_crop": False, "image_mean": _HALF, "image_std": _HALF}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "CLIPImageProcessor": _CLIP,
    "CLIPFeatureExtractor": _CLIP,
    "LlavaImageProcessor": _CLIP,
    "BlipImageProcessor": _SQUASH | {"size": {"height": 384, "width": 384}, "resample": 3} | _CLIP_NUMBERS,
    "SiglipImageProcessor": _SQUASH | {"resample": 3},
    "ViTImageProcessor": _SQUASH | {"resample": 2},
    "ViTFeatureExtractor": _SQUASH | {"resample": 2},
    "Siglip2ImageProcessor": {
        "patch_size": 16,
        "max_num_patches": 256,
        "resample": 2,
        "image_mean": _HALF,
        "image_std": _HALF,
    },
}


def read_processor(folder: Path) -> dict[str, Any]:
    """What `transformers` wrote of pictures, as it stands there.

    Raises:
        UnsupportedModel: There is no such file.
    """
    if (folder / PREPROCESSOR).is_file():
        return read_json(folder / PREPROCESSOR)
    if (folder / "processor_config.json").is_file():
        content: dict[str, Any] = read_json(folder / "processor_config.json").get("image_processor", {})
        return content
    hint = "copy it from where the model is from: a guess would spoil every answer"
    raise UnsupportedModel(f"{folder} has no {PREPROCESSOR}, which says how pictures are prepared", hint=hint)


def read_image_processor(folder: Path) -> AnyPreprocessing:
    """Read what `transformers` wrote.

    Raises:
        UnsupportedModel: There is no such file, or it asks for steps that are not known here.
    """
    path, content = folder / PREPROCESSOR, read_processor(folder)
    name = content.get("image_processor_type", content.get("feature_extractor_type", ""))
    base = name.removesuffix("Fast").replace("ImageProcessorPil", "ImageProcessor")
    if base not in _DEFAULTS:
        raise UnsupportedModel(f"{path}: {name or 'no image_processor_type'}; known: {', '.join(_DEFAULTS)}")
    silent = [key for key, value in content.items() if value is None and not key.startswith("image_")]
    merged = _DEFAULTS[base] | {key: value for key, value in content.items() if key not in silent}
    merged["size"] = _with_sides(merged.get("size"), shortest=base.startswith("CLIP"))
    return _flexible(merged, path) if base == "Siglip2ImageProcessor" else _fixed(merged, path)


def _flexible(settings: Mapping[str, Any], path: Path) -> FlexiblePreprocessing:
    _check_steps(settings, path)
    return FlexiblePreprocessing(
        patch_size=int(settings["patch_size"]),
        max_num_patches=int(settings["max_num_patches"]),
        mean=_three(settings["image_mean"]),
        std=_three(settings["image_std"]),
        interpolation=_filter(settings["resample"]),
    )


def _fixed(settings: Mapping[str, Any], path: Path) -> Preprocessing:
    _check_steps(settings, path)
    size = settings["size"]
    shorter = size.get("shortest_edge")
    side = square([size["height"], size["width"]], "size") if shorter is None else int(shorter)
    crop = side
    if settings["do_center_crop"]:
        edges = settings["crop_size"]
        crop = square([edges["height"], edges["width"]] if isinstance(edges, Mapping) else edges, "crop_size")
    elif shorter is not None:
        raise UnsupportedModel(f"{path}: the shorter side is resized and nothing is cropped, so sizes would differ")
    if shorter is None and crop != side:
        raise UnsupportedModel(f"{path}: pictures are squashed and then cropped")
    return Preprocessing(
        image_size=crop,
        crop_fraction=crop / side,
        mean=_three(settings["image_mean"]),
        std=_three(settings["image_std"]),
        resize="squash" if shorter is None else "crop",
        interpolation=_filter(settings["resample"]),
    )


def read_lone_look(settings: Mapping[str, Any], side: int, path: Path) -> Preprocessing:
    """How SmolVLM prepares each tile, and a picture that is looked at whole.

    Args:
        settings: As `read_processor` gives them.
        side: Of a tile, in pixels.
        path: The file, for messages.

    Raises:
        UnsupportedModel: It asks for steps that are not known here.
    """
    _check_steps({**settings, "do_pad": False}, path)  # it pads with pictures that nobody looks at
    return Preprocessing(
        image_size=side,
        crop_fraction=1.0,
        mean=_three(settings.get("image_mean") or _HALF),
        std=_three(settings.get("image_std") or _HALF),
        resize="squash",
        interpolation=_filter(settings.get("resample", 1)),
    )


def _check_steps(settings: Mapping[str, Any], path: Path) -> None:
    odd = [step for step in ("do_resize", "do_rescale", "do_normalize") if not settings.get(step, True)]
    odd += [step for step in ("do_pad",) if settings.get(step)]
    if abs(float(settings.get("rescale_factor", 1 / 255)) - 1 / 255) > 1e-9:
        odd.append("rescale_factor")
    if odd:
        raise UnsupportedModel(f"{path}: pictures are prepared in a way that is not known here: {', '.join(odd)}")


def _with_sides(size: Any, *, shortest: bool) -> Any:
    """A lone number as the processor of this class reads it: the shorter side (CLIP) or both."""
    if not isinstance(size, int):
        return size
    return {"shortest_edge": size} if shortest else {"height": size, "width": size}


def image_processor_config(preprocessing: AnyPreprocessing) -> dict[str, Any]:
    """What `transformers` reads, for ``preprocessor_config.json``."""
    common = {
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
        "resample": next(number for number, name in _FILTERS.items() if name == preprocessing.interpolation),
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "rescale_factor": 1 / 255,
    }
    if isinstance(preprocessing, FlexiblePreprocessing):
        own = {"patch_size": preprocessing.patch_size, "max_num_patches": preprocessing.max_num_patches}
        return {"image_processor_type": "Siglip2ImageProcessor", **own, **common}
    side = preprocessing.image_size
    if preprocessing.resize == "squash":
        size = {"size": {"height": side, "width": side}}
        return {"image_processor_type": "SiglipImageProcessor", **size, **common}
    shorter = round(side / preprocessing.crop_fraction)
    crop = {"size": {"shortest_edge": shorter}, "crop_size": {"height": side, "width": side}, "do_center_crop": True}
    return {"image_processor_type": "CLIPImageProcessor", **crop, "do_convert_rgb": True, **common}


def read_preprocess_cfg(settings: Mapping[str, Any], image_size: int) -> Preprocessing:
    """Read open_clip's ``preprocess_cfg``; what it does not say is as OpenAI's CLIP has it.

    Raises:
        UnsupportedModel: It asks for steps that are not known here.
    """
    mode = settings.get("resize_mode") or "shortest"
    if mode not in ("shortest", "squash"):
        raise UnsupportedModel(f"open_clip's resize_mode {mode!r} is not known here; known: shortest, squash")
    return Preprocessing(
        image_size=image_size,  # open_clip takes the tower's, whatever else the file says
        crop_fraction=1.0,
        mean=_three(settings.get("mean") or CLIP_MEAN),
        std=_three(settings.get("std") or CLIP_STD),
        resize="crop" if mode == "shortest" else "squash",
        interpolation=settings.get("interpolation") or "bicubic",
    )


def preprocess_cfg(preprocessing: Preprocessing) -> dict[str, Any]:
    """What open_clip reads."""
    return {
        "size": preprocessing.image_size,
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
        "interpolation": preprocessing.interpolation,
        "resize_mode": "shortest" if preprocessing.resize == "crop" else "squash",
    }


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = values
    return float(red), float(green), float(blue)


def _filter(number: Any) -> Any:
    if number not in _FILTERS:
        raise UnsupportedModel(f"resize filter {number}; known: 1 (lanczos), 2 (bilinear), 3 (bicubic)")
    return _FILTERS[number]
