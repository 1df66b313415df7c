"""What `nunbit adapt fit` and `nunbit adapt report` read alike from their options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nunbit.errors import UsageError

if TYPE_CHECKING:
    from nunbit.adapt import FitOptions


def fit_options(
    templates: str, rungs: str, settings: Sequence[str], descriptions: Mapping[str, Sequence[str]] | None
) -> FitOptions:
    """Checked as far as can be without a model. ``auto`` and ``all`` are the rungs that there is all for."""
    from nunbit.adapt import ON_EMBEDDINGS, RUNGS, Described, FitOptions, Promises
    from nunbit.config import read_config
    from nunbit.text.templates import get_templates

    get_templates(templates)
    described = [] if descriptions is None else [Described.NAME]
    groups = {
        "auto": [*ON_EMBEDDINGS, *described],
        "all": [name for name in RUNGS if name != Described.NAME or described],
    }
    wanted = groups.get(rungs) or [name.strip() for name in rungs.split(",")]
    strange = next((name for name in wanted if name not in RUNGS), None)
    if strange is not None:
        raise UsageError(f"there is no rung {strange!r}", hint=f"there are: {', '.join(RUNGS)}")
    if (Described.NAME in wanted) != bool(described):
        message = "the rung descriptions and --descriptions FILE go together"
        raise UsageError(message, hint="`nunbit adapt fit EXAMPLES --into HEAD --descriptions FILE`")
    promises = read_config(Promises, None, settings)
    if promises.unknown == "negatives" and not Path(promises.negatives).exists():
        hint = "give a text file with a word a line, or WordNet's folder (Debian: wordnet-base)"
        raise UsageError(f"there are no negative words in {promises.negatives}", hint=hint)
    return FitOptions(templates=templates, descriptions=descriptions, rungs=wanted, promises=promises)
