"""Models as training sees them: what of them is locked, what learns, and how they are saved.

A student turns pictures and texts into *inputs* (pixels and token ids, or the outputs of a locked tower), and inputs
into embeddings; only the second step has gradients.

Shapes: N pairs, S side in pixels, T tokens, E embedding, F width of a locked tower's output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

from nunbit.encode import Encoder
from nunbit.preprocessing import Preprocessing

if TYPE_CHECKING:
    from nunbit.types import FloatArray

MAX_SCALE = 100.0
"""Beyond this factor on cosines training becomes unstable (arXiv 2103.00020, section 2.5). A start that has a larger
one already (SigLIP) keeps it as its limit: less would spoil its probabilities."""


@dataclass(frozen=True, slots=True)
class LockedWidths:
    """F of each locked tower's output; None where a tower is not locked."""

    image: int | None
    text: int | None


class Student(Protocol):
    """A model that learns."""

    @property
    def module(self) -> nn.Module:
        """Holds everything that learns."""

    @property
    def start_fingerprint(self) -> str:
        """Of the model before training, as `nunbit.encode.Encoder.fingerprint`."""

    @property
    def preprocessing(self) -> Preprocessing:
        """Pictures → pixels."""

    @property
    def locked(self) -> LockedWidths:
        """What does not learn."""

    def locked_image_encoder(self) -> Encoder:
        """An encoder whose picture rows are the outputs of the locked tower."""

    def locked_text_rows(self, texts: Sequence[str]) -> FloatArray:
        """N texts → (N, F), the outputs of the locked tower."""

    def token_ids(self, texts: Sequence[str]) -> Tensor:
        """N texts → (N, T) int64."""

    def embed_image(self, inputs: Tensor) -> Tensor:
        """Normalized pixels (N, 3, S, S), or outputs of the locked tower (N, F) → (N, E) unit rows."""

    def embed_text(self, inputs: Tensor) -> Tensor:
        """Token ids (N, T), or outputs of the locked tower (N, F) → (N, E) unit rows."""

    def scale_and_bias(self) -> tuple[Tensor, Tensor | None]:
        """The factor on cosines, no logarithm, and what is added to them for the sigmoid objective."""

    def constrain(self) -> None:
        """Keep the factor in [1, `MAX_SCALE`], or at most at that of the start."""

    def rate_factor(self, name: str) -> float:
        """A parameter's share of the learning rate."""

    def divide(self) -> None:
        """Divide parameters over the ranks (FSDP2)."""

    def merge(self) -> None:
        """Turn adapters into plain weights, after training."""

    def save(self, folder: Path, provenance: Mapping[str, Any]) -> None:
        """Write a model folder that `nunbit.load` opens."""


def append_provenance(folder: Path, provenance: Mapping[str, Any]) -> None:
    """Say on a model card how the model came about.

    Args:
        folder: Of the model.
        provenance: Names and plain values, one a line of the card.
    """
    lines = ["", "## How it was trained", "", *(f"- {name}: {value}" for name, value in provenance.items())]
    with (folder / "README.md").open("a", encoding="utf-8") as card:
        card.write("\n".join(lines) + "\n")
