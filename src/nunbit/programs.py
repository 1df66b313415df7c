"""A tower as one function of one tensor, which compilers can take: the way out of torch.

Place in the river: below the encoders that offer programs, and below whatever turns programs into other formats.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


_LOGGERS = ("torch", "onnxscript", "onnx_ir", "openvino")


@contextmanager
def quiet_compilers() -> Iterator[None]:
    """Silence tracers and compilers: nobody can act upon what they say, and what they made is compared."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@dataclass(frozen=True, slots=True)
class Program:
    """What one tower computes.

    Attributes:
        embed: A tensor → unit rows (B, E).
        modules: Whose weights ``embed`` reads.
        example: An input, of at least 2 along each free axis.
        free: Those axes of the input that may have any length, with a name and the most that it may be.
    """

    embed: Callable[[Tensor], Tensor]
    modules: tuple[nn.Module, ...]
    example: Tensor
    free: Mapping[int, tuple[str, int | None]]

    def export(self, *, strict: bool = False) -> torch.export.ExportedProgram:
        """Trace it.

        Args:
            strict: Read the Python code instead of following one call. Slower; only then does ``len()`` of a tensor
                stay free where a compiler asks for it.
        """
        import torch

        program = self

        class Module(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.parts = torch.nn.ModuleList(program.modules)

            def forward(self, x: Tensor) -> Tensor:
                return program.embed(x)

        dimensions = {axis: torch.export.Dim(name, max=most) for axis, (name, most) in self.free.items()}
        return torch.export.export(Module().eval(), (self.example,), dynamic_shapes=(dimensions,), strict=strict)
