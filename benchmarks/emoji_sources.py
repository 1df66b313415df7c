"""Where `emoji_pairs` takes drawings and names from: packages with their checksums, styles with their licences.

Open licences only; that of EmojiOne 2.2.7, which its package does not state, is what Iconify's sets say of it. Sets of
icons in one color are left out: the model would have to learn without what tells most drawings apart. Validation and
test are styles of artists that none of the training styles is by. The parts were settled after first models, trained
with Twitter's drawings among others, had been measured on EmojiOne's; no model had been measured on Twitter's or
OpenMoji's by then. The recipe was chosen by what it reaches on OpenMoji's. The test style is read once, at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Style:
    """One artist's drawings.

    Attributes:
        name: A folder's name.
        part: What they are for.
        package: Name and version of the package that holds them.
        members: The folder inside of it whose files are called by code points; or, of an Iconify set, its one file,
            in which drawings are called by words or by regions.
        ending: Of those files.
        license: Of the drawings, which is not always that of the package.
        by: Who made them.
        flags: Its flags of countries and regions are used. LobeHub's packages hold some that are not Microsoft's, and
            do not say whose they are.
    """

    name: str
    part: Literal["train", "validation", "test"]
    package: str
    members: str
    ending: str
    license: str
    by: str
    flags: bool = True


PACKAGES = {
    "emojibase-data@17.0.0": (
        "Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA=="
    ),
    "emoji-datasource-google@16.0.0": (
        "ZRexfzs7MVoLnmzZmNsO4TKhnAJp5D++Vm6PpUpH/jEQQlemp3l88CjZ+DoZ2faM9R4QxZkOPJCoT8DlPhfQ3A=="
    ),
    "emoji-datasource-google@4.1.0": (
        "QjpXzWdaqbDAOc4fUYmekhFgs7W4ZxbPW5863lRl26O1U5Twmy40Es2Dcyuz6Ni6Mo7gRXjFv/K0xhTGRU5Gow=="
    ),
    "emoji-datasource-google@3.0.0": (
        "Ms+IO6V40EKcfBjxs76iLYQexo6Tgl8MbTxM7Z4Qm5n/Hwkr/DNNYui40aU3YaVd8oRNLaMXN1/rS++/VHViPQ=="
    ),
    "emoji-datasource-twitter@16.0.0": (
        "7F+uCuHH+7Qnrc15P5tnbvKkg9E6tlzi4MnT2uW1RlN4pLYTza6cP/dstIfSDMtpjFLWuZewWg8jBbuL2eyELQ=="
    ),
    "@lobehub/fluent-emoji-3d@1.1.0": (
        "Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g=="
    ),
    "@lobehub/fluent-emoji-flat@1.1.0": (
        "lPYCg8+N56MIj+iOgeBeH6AF0tneXxJCvgi41rOTjAWpA5rU2WUcmU1fiIXouEe8GrSTarWCYLY2ML+rdLRHsg=="
    ),
    "@iconify-json/fxemoji@1.2.2": (
        "UAasRaxzFUKfIGSmLwnoarsssA4LX0VLLuEmplIqM6ZNQqIQRtav8tZ4H1neTlBreXuMQyAifr5jP4kn78DpiQ=="
    ),
    "emoji-datasource-emojione@3.0.0": (
        "IizQzEpqD2X+fJRX1nEoN0ZCAwxyxlrz0sCV+HQAzi9m/jTA7FjPPaVX+P8esTCqCYK6agUHTr9nnjmTTSxYDA=="
    ),
    "@lobehub/fluent-emoji-modern@1.0.0": (
        "YdZEgLC/vh29uDEl440q3W2vN50FdUFarQoKUHH9Clzx61/wW6mImLJywVBMKQPa3+GL59j3NvOlTLhH4rxleA=="
    ),
    "@iconify-json/emojione-v1@1.2.3": (
        "UjI2VQEXVtGlPBvQuxEizro7QCgBcJDOYwKUupquvvZ8UV4xOlvm45IU82JYWegiAWLerY79gFLMZ26U6Ms+ww=="
    ),
    "@iconify-json/streamline-emojis@1.2.4": (
        "iNr9T9XuZVTyQPJO8ZlLxBzPkpi7qMl+z1l0C31vpEMqhPMelth3n7CeWQYtixdetDPdI81yeG4ROqjWpYJE6A=="
    ),
    "@iconify-json/circle-flags@1.2.11": (
        "vrx2btOkTQ4/P75ElEDnjXShmNTwInXuhhpIQQ6U6YUTdxfWyvm/4ijNG8FX8iWFr+sqqQRCvXpm2RfRtjVXfg=="
    ),
    "@iconify-json/flag@1.2.12": (
        "B5zphOSTn54UX9v1sKsR1atuhyuXExiAkjuLQA8aeDcB68+P6oiStEDeEEVkbHgwvFvklPM2G7GhqFw6VMnXhw=="
    ),
    "openmoji@17.0.0": ("EBnYrNGdcdw+OSXmENeNE1yBNRu6tOraTmoOyUbJkTmvT/+XETp8RZLSJFzD3lrPc5N9CzsyPnRTk0Vp4UaI9w=="),
}
"""Name and version → the base64 of the sha512 of the archive, as npm's ``integrity`` has it."""

LABELS = "emojibase-data@17.0.0"

_GOOGLE = "package/img/google/64/"
_ICONS = "package/icons.json"
_NOTO, _FLUENT, _EMOJIONE = "Google (Noto Emoji)", "Microsoft (Fluent Emoji)", "EmojiOne 2.2.7"
STYLES = (
    Style("google", "train", "emoji-datasource-google@16.0.0", _GOOGLE, ".png", "Apache-2.0", _NOTO),
    Style("google-2017", "train", "emoji-datasource-google@4.1.0", _GOOGLE, ".png", "Apache-2.0", _NOTO),
    Style("google-2016", "train", "emoji-datasource-google@3.0.0", _GOOGLE, ".png", "Apache-2.0", _NOTO),
    Style(
        "twitter",
        "test",
        "emoji-datasource-twitter@16.0.0",
        "package/img/twitter/64/",
        ".png",
        "CC-BY-4.0",
        "Twitter and jdecked (Twemoji)",
    ),
    Style("fluent-3d", "train", "@lobehub/fluent-emoji-3d@1.1.0", "package/assets/", ".webp", "MIT", _FLUENT, False),
    Style("fluent-flat", "train", "@lobehub/fluent-emoji-flat@1.1.0", "package/assets/", ".svg", "MIT", _FLUENT, False),
    Style(
        "fxemoji",
        "train",
        "@iconify-json/fxemoji@1.2.2",
        _ICONS,
        ".json",
        "Apache-2.0",
        "Mozilla (Firefox OS Emoji)",
    ),
    Style(
        "emojione",
        "train",
        "emoji-datasource-emojione@3.0.0",
        "package/img/emojione/64/",
        ".png",
        "CC-BY-4.0",
        _EMOJIONE,
    ),
    Style(
        "fluent-modern", "train", "@lobehub/fluent-emoji-modern@1.0.0", "package/assets/", ".svg", "MIT", _FLUENT, False
    ),
    Style("emojione-v1", "train", "@iconify-json/emojione-v1@1.2.3", _ICONS, ".json", "CC-BY-SA-4.0", "EmojiOne 1.5.2"),
    Style("streamline", "train", "@iconify-json/streamline-emojis@1.2.4", _ICONS, ".json", "CC-BY-4.0", "Streamline"),
    Style("circle-flags", "train", "@iconify-json/circle-flags@1.2.11", _ICONS, ".json", "MIT", "HatScripts"),
    Style("flag-icons", "train", "@iconify-json/flag@1.2.12", _ICONS, ".json", "MIT", "Panayiotis Lipiridis"),
    Style("openmoji", "validation", "openmoji@17.0.0", "package/color/svg/", ".svg", "CC-BY-SA-4.0", "OpenMoji"),
)
