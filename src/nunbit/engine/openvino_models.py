"""OpenVINO as this project uses it: imported without its telemetry, compiled with a cache, run from several threads.

Shapes: B batch, E embedding.
"""

from __future__ import annotations

import queue
import sys
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nunbit.durable import only_writer
from nunbit.errors import EngineRefused, ModelError, UnsupportedModel
from nunbit.programs import quiet_compilers

if TYPE_CHECKING:
    from nunbit.engine.machine import Machine
    from nunbit.engine.names import Precision
    from nunbit.programs import Program
    from nunbit.types import FloatArray

_TELEMETRY = "openvino_telemetry"
_IMPORTING = threading.Lock()


def import_openvino() -> Any:
    """The ``openvino`` package.

    On being imported it would report to its maker over the network; it does without where its telemetry package cannot
    be found, and here it never finds it.

    Its table of numpy's types is made here, in one thread: OpenVINO makes it when it is first needed, and when two
    threads need it at once, one waits for the interpreter's lock and the other, which has it, for the table, for ever.

    Raises:
        ModelError: It is not installed.
    """
    with _IMPORTING:
        if "openvino" not in sys.modules:
            hidden = sys.modules.get(_TELEMETRY)
            sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
            try:
                import openvino
            except ImportError as error:
                message = f"the package openvino cannot be used: {error}"
                raise ModelError(message, hint="pip install openvino") from error
            finally:
                sys.modules.pop(_TELEMETRY, None)
                if hidden is not None:
                    sys.modules[_TELEMETRY] = hidden
        import openvino

        openvino.Type.f32.to_dtype()
    return openvino


def convert(program: Program, name: str) -> Any:
    """A tower of torch → an `openvino.Model` in float32.

    Raises:
        UnsupportedModel: It has a part that OpenVINO or torch's tracer does not know.
    """
    openvino = import_openvino()
    try:
        with quiet_compilers():
            return openvino.convert_model(program.export())
    except Exception as error:  # of two compilers, with dozens of errors between them
        raise UnsupportedModel(f"OpenVINO cannot take the {name} tower: {first_line(error)}") from error


def _alone(cache: Path | None) -> ExitStack:
    """Hold a lock: OpenVINO's processes trip over each other when several write one compiled model into the cache."""
    stack = ExitStack()
    if cache is not None:
        with suppress(OSError):  # a cache that cannot be written to needs none
            stack.enter_context(only_writer(cache.with_suffix(".lock"), cache.name, wait=True))
    return stack


def first_line(error: Exception) -> str:
    """What an error of a compiler says first; the rest is about its insides."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class CompiledModel:
    """A model that is ready to run, in as many threads at once as it has streams.

    Args:
        model: An `openvino.Model` or the path of one.
        precision: What to compute in.
        machine: That it runs on.
        streams: How many runs go side by side; the machine's cores are shared out among them.
        cache: Folder for compiled models; None for no cache.
    """

    def __init__(
        self, model: Any, precision: Precision, machine: Machine, *, streams: int, cache: Path | None = None
    ) -> None:
        openvino = import_openvino()
        # What int8 leaves in floating point (attention, norms) is quicker in bfloat16 where the processor has it.
        half = precision == "bf16" or (precision == "int8" and machine.has_bf16)
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
            "NUM_STREAMS": str(streams),
            "INFERENCE_NUM_THREADS": machine.cores,
            "ENABLE_CPU_PINNING": False,  # decoding threads want those cores, too
        }
        if cache is not None:
            settings["CACHE_DIR"] = str(cache)
        source, shown = (str(model), model.name) if isinstance(model, Path) else (model, "a tower")
        try:
            with _alone(cache):
                compiled = openvino.Core().compile_model(source, "CPU", settings)
        except RuntimeError as error:
            hint = "prepare it again: nunbit engines MODEL --again"
            raise EngineRefused(f"OpenVINO cannot compile {shown}: {first_line(error)}", hint=hint) from error
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(streams):
            self._idle.put(compiled.create_infer_request())

    def __call__(self, inputs: np.ndarray[Any, Any]) -> FloatArray:
        """Run; waits while all streams are busy.

        Args:
            inputs: What the tower takes.

        Returns:
            (B, E) float32.
        """
        request = self._idle.get()
        try:
            request.infer([np.ascontiguousarray(inputs)], share_inputs=True)
            return np.array(request.get_output_tensor(0).data, np.float32)
        finally:
            self._idle.put(request)
