"""The eye on OpenVINO: the same features.

Shapes: K pictures, S side in pixels, P patches, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nunbit.engine.machine import this_machine
from nunbit.engine.names import COSINE_FLOOR
from nunbit.engine.openvino_models import CompiledModel, convert
from nunbit.errors import EngineRefused
from nunbit.generate.kept_graphs import fingerprint, open_graph
from nunbit.programs import Program

if TYPE_CHECKING:
    from nunbit.vlm.eye import AnyEye


class OpenVinoEye:
    """An eye, compiled for this processor in float32. The first time it is converted, which takes some seconds.

    Args:
        eye: On the processor; its weights are copied.

    Raises:
        UnsupportedModel: OpenVINO cannot take it.
        EngineRefused: It does not say what the eye says.
    """

    def __init__(self, eye: AnyEye) -> None:
        side = eye.preprocessing.image_size
        example = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
        program = Program(eye, eye.parts, example, {0: ("pictures", None)})
        weights = ((str(number), one) for number, part in enumerate(eye.parts) for one in part.state_dict().values())
        self._model = open_graph(
            f"eye-{fingerprint(weights, eye.config)}",
            lambda: convert(program, "picture"),
            lambda graph: CompiledModel(graph, "fp32", this_machine(), streams=1),
        )
        with torch.no_grad():
            cosines = torch.cosine_similarity(self(example).flatten(1), eye(example).flatten(1))
        if not cosines.min() >= COSINE_FLOOR["fp32"]:
            found = f"the eye on OpenVINO says something else: cosine {cosines.min():.6f}"
            raise EngineRefused(found, hint="--engine torch")

    def __call__(self, pixel_values: Tensor) -> Tensor:
        """(K, 3, S, S) floating, normalized → (K, P, D) float32."""
        return torch.from_numpy(self._model(pixel_values.float().numpy()))
