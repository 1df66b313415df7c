"""torchvision, imported also where its compiled part does not fit the installed torch.

timm and `transformers` import it wherever it is installed, and it declares the shapes of its compiled operators when it
is imported. That fails where the compiled part could not be loaded: a CPU build of torch with torchvision's CUDA wheel.
"""

from __future__ import annotations

import re
import sys
from importlib import import_module
from importlib.util import find_spec

import torch

from nunbit.errors import UnsupportedModel

_MISSING_OPERATOR = re.compile(r"operator torchvision::(\w+) does not exist")


def import_torchvision() -> None:
    """Import torchvision if it is installed, so that packages that ask for it later find it.

    No model here uses its compiled operators, so the missing ones are declared, without an implementation, and the
    import goes on.

    Raises:
        UnsupportedModel: It cannot be imported all the same.
    """
    if find_spec("torchvision") is None:
        return
    for _ in range(16):
        try:
            import_module("torchvision")
            return
        except RuntimeError as error:
            missing = _MISSING_OPERATOR.search(str(error))
            if missing is None:
                raise
            torch.library.define(f"torchvision::{missing[1]}", "(Tensor unused) -> Tensor")
            for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
                del sys.modules[name]  # half imported
    raise UnsupportedModel("torchvision cannot be imported", hint="install a torchvision that fits the installed torch")
