"""The eye on OpenVINO: the same features.

Shapes: K pictures, S side in pixels, P patches, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nunbit.engine.kept_graphs import fingerprint, open_graph
from nunbit.engine.machine import this_machine
from nunbit.engine.names import refusal
from nunbit.engine.openvino_models import CompiledModel, convert, first_line
from nunbit.engine.record import FORMAT_VERSION
from nunbit.errors import EngineRefused
from nunbit.programs import Program

if TYPE_CHECKING:
    from nunbit.vlm.eye import AnyEye


class OpenVinoEye:
    """An eye, compiled for this processor in float32. The first time it is converted, which takes some seconds.

    Args:
        eye: On the processor; its weights are copied.
        tell: Told in a few words what takes long.

    Raises:
        UnsupportedModel: OpenVINO cannot take it.
        EngineRefused: It does not say what the eye says.
    """

    def __init__(self, eye: AnyEye, tell: Callable[[str], None] = lambda _: None) -> None:
        side = eye.preprocessing.image_size
        example = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
        with torch.no_grad():
            expected = eye(example).flatten(1)

        def make() -> Any:
            tell("preparing the eye for OpenVINO, once")
            return convert(Program(eye, eye.parts, example, {0: ("pictures", None)}), "picture")

        def opened(graph: Any) -> CompiledModel:
            compiled = CompiledModel(graph, "fp32", this_machine(), streams=1)
            try:
                found = torch.from_numpy(compiled(example.numpy())).flatten(1)
                cosines = torch.cosine_similarity(found, expected)
            except RuntimeError as error:  # it has no memory, or gives another shape
                message = f"OpenVINO cannot compute the eye: {first_line(error)}"
                raise EngineRefused(message, hint="--engine torch") from error
            if refused := refusal(float(cosines.mean()), float(cosines.min()), "fp32"):
                raise EngineRefused(f"the eye on OpenVINO says something else: {refused}", hint="--engine torch")
            return compiled

        weights = ((str(number), one) for number, part in enumerate(eye.parts) for one in part.state_dict().values())
        self._model = open_graph(f"eye-{fingerprint(weights, FORMAT_VERSION, eye.config)}", make, opened)

    def __call__(self, pixel_values: Tensor) -> Tensor:
        """(K, 3, S, S) floating, normalized → (K, P, D) float32."""
        return torch.from_numpy(self._model(pixel_values.float().numpy()))
