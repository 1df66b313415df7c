"""What goes wrong only when threads meet in OpenVINO."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import os, sys, threading
from nunbit.engine.openvino_models import import_openvino

sys.setswitchinterval(1e-6)
together = threading.Barrier(4)

def work():
    together.wait()
    import_openvino().Type.f32.to_dtype()

threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
os._exit(0)
"""


def test_threads_that_need_openvinos_table_of_types_at_once_do_not_lock_each_other_up() -> None:
    """Without a first call in one thread this hangs nearly every time."""
    for _ in range(3):
        subprocess.run([sys.executable, "-c", SCRIPT], check=True, timeout=60)
