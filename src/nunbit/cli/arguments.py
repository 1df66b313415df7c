"""What several subcommands read from their arguments."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from nunbit.errors import UsageError


def expand_paths(paths: Sequence[str]) -> list[str]:
    """The paths as given; a single ``-`` stands for one path a line on standard input."""
    return sys.stdin.read().splitlines() if list(paths) == ["-"] else list(paths)


def no_photograph(paths: Sequence[str]) -> UsageError:
    """The error for paths that lead to no picture at all."""
    return UsageError(f"no photograph found in {', '.join(paths)}", hint="give a picture or a folder of pictures")
