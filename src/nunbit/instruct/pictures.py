"""Pictures of conversations: opened each time, or what a frozen eye says of them, computed once.

Shapes: K looks, S side of the eye's pictures in pixels, P patches, D width of the patch features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nunbit.console import track
from nunbit.cores import usable_cores
from nunbit.errors import ImageError, UsageError
from nunbit.images import open_image
from nunbit.instruct.formats import Described, Shown, picture_key
from nunbit.training.feature_store import FeatureStore
from nunbit.types import Rejected
from nunbit.vlm.conversation import Layout
from nunbit.vlm.eye import StarterEye
from nunbit.vlm.looking import Looker

if TYPE_CHECKING:
    from PIL import Image

    from nunbit.types import FloatArray
    from nunbit.vlm.model import VisionLanguageModel

_GROUP = 32


class Pictures:
    """What a model sees of pictures.

    Args:
        model: Whose eye.
        looker: Makes of a picture what the eye looks at.
    """

    def __init__(self, model: VisionLanguageModel, looker: Looker) -> None:
        self._model, self._looker = model, looker
        self._store: FeatureStore | None = None

    @property
    def cached(self) -> bool:
        """`see` gives features instead of pixels."""
        return self._store is not None

    @property
    def encoder_decoder(self) -> bool:
        """How the model's samples are put side by side."""
        return self._model.language_model.is_encoder_decoder

    def look_once(
        self,
        images: Iterable[Shown],
        store: FeatureStore,
        set_aside: Callable[[Rejected], None],
    ) -> None:
        """Ask the eye about all pictures that are not in a store yet, and take them from there from now on.

        Args:
            images: Of all conversations; each is looked at once.
            store: Rows of K x P x D; grows.
            set_aside: Told of what cannot be read.
        """
        if self._looker.tiles is not None:
            raise UsageError("pictures in tiles have no fixed number of features to keep", hint="data.cache: null")
        distinct = list({picture_key(image): image for image in images}.values())
        done = store.fill(distinct, lambda some: self._features(some, set_aside), group=_GROUP)
        for _ in track(done, label="looking", total=math.ceil(len(distinct) / _GROUP)):
            pass
        self._store = store

    def layout(self, image: Shown) -> Layout:
        """How a picture is looked at.

        Raises:
            ImageError: It cannot be read.
        """
        if self._store is not None:
            if picture_key(image) not in self._store:
                raise ImageError("unreadable picture", f"{image} cannot be read")
            return self._looker.layout(1, 1)  # there are no tiles
        if isinstance(image, Described):
            raise UsageError("pictures that are described in words need data.cache", hint="data.cache: float16")
        return self._looker.layout(*_open(image).size)

    def see(self, images: Sequence[Shown]) -> Tensor | None:
        """Pixels (K, 3, S, S) of all looks, or, where the eye has looked already, features (K, P, D); None of none."""
        if not images:
            return None
        if self._store is not None:
            rows = self._store.rows([picture_key(image) for image in images])
            return torch.from_numpy(rows).view(len(images), self._model.eye.num_patches, self._model.eye.hidden_size)
        return torch.from_numpy(np.concatenate([self._pixels(image) for image in images]))

    @torch.no_grad()
    def _features(self, images: list[Shown], set_aside: Callable[[Rejected], None]) -> tuple[list[str], FloatArray]:
        """Keys of those that can be read, and what the eye says of them, a row each."""
        eye = self._model.eye
        pixels = []
        described = [image for image in images if isinstance(image, Described)]
        if described and not isinstance(eye, StarterEye):
            raise UsageError("only the starter's eye sees pictures that are described in words")
        keys = [picture_key(image) for image in described]
        rows = [eye.imagine([image.text for image in described])] if described and isinstance(eye, StarterEye) else []
        with ThreadPoolExecutor(usable_cores(), thread_name_prefix="nunbit-decode") as pool:
            files = [image for image in images if isinstance(image, Path)]
            for image, found in zip(files, pool.map(self._try_pixels, files), strict=True):
                if isinstance(found, Rejected):
                    set_aside(found)
                else:
                    keys.append(picture_key(image))
                    pixels.append(found)
        if pixels:
            rows.append(eye(torch.from_numpy(np.concatenate(pixels))).float().cpu())
        width = eye.num_patches * eye.hidden_size
        return keys, torch.cat(rows).flatten(1).numpy() if rows else np.empty((0, width), np.float32)

    def _try_pixels(self, path: Path) -> FloatArray | Rejected:
        try:
            return self._pixels(path)
        except ImageError as error:
            return Rejected(str(path), error.reason, error.message)

    def _pixels(self, image: Shown) -> FloatArray:
        assert isinstance(image, Path)
        return self._looker.pixels(_open(image))


def _open(path: Path) -> Image.Image:
    """A picture in mode RGB.

    Raises:
        ImageError: There is none, or it cannot be read.
    """
    if not path.is_file():
        raise ImageError("missing", f"there is no {path}")
    return open_image(path)[0]
