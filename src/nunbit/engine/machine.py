"""What this machine computes with."""

from __future__ import annotations

import hashlib
import platform
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nunbit.cores import usable_cores

_CPU_FILE = Path("/proc/cpuinfo")
_GPU_FILE = Path("/dev/nvidiactl")
_NAMED = {"amx_int8": "AMX", "amx_tile": "AMX", "avx512_vnni": "AVX-512 VNNI", "avx512_bf16": "AVX-512 bf16",
          "avx512f": "AVX-512", "avx2": "AVX2"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine, as far as it decides which engine is quick.

    Attributes:
        processor: Its name.
        features: What of interest its processor can do, the best first: ``AMX``, ``AVX-512 VNNI``, ...
        cores: How many this process may use.
        gpu: A driver for NVIDIA's GPUs is loaded; whether torch can use one is another question.
    """

    processor: str
    features: tuple[str, ...]
    cores: int
    gpu: bool

    @property
    def has_bf16(self) -> bool:
        """Tell whether the processor multiplies in bfloat16."""
        return "AMX" in self.features or "AVX-512 bf16" in self.features

    @property
    def streams(self) -> int:
        """How many forward passes go side by side: one a core on few cores, on many one for every four."""
        return max(min(self.cores, 4), self.cores // 4)

    @property
    def signature(self) -> str:
        """Equal for machines on which the same engine is quick; timings of one mean nothing on another."""
        return hashlib.sha256(repr((self.processor, self.features, self.cores)).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        kinds = ", ".join(self.features) or "no vector extensions known here"
        return f"{self.processor}, {kinds}, {self.cores} core{'' if self.cores == 1 else 's'}"


def this_machine() -> Machine:
    """Ask the system; loads nothing."""
    lines: dict[str, str] = {}
    with suppress(OSError):  # not Linux
        for line in _CPU_FILE.read_text(errors="replace").split("\n\n")[0].splitlines():
            key, _, value = line.partition(":")
            lines[key.strip()] = value.strip()
    flags = (lines.get("flags") or lines.get("Features") or "").split()
    features = dict.fromkeys(name for flag, name in _NAMED.items() if flag in flags)
    part = " ".join(lines[key] for key in ("CPU implementer", "CPU part") if key in lines)  # ARM has no name there
    processor = lines.get("model name") or part or platform.processor() or platform.machine()
    return Machine(processor, tuple(features), usable_cores(), _GPU_FILE.exists())
