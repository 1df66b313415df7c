"""``nunbit caption``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nunbit.cli.arguments import expand_paths, no_photograph
from nunbit.cli.output import print_json, report_rejected
from nunbit.cli.talking import MODEL_HELP, take_options, talk_options
from nunbit.picture_files import one_line
from nunbit.types import Rejected

if TYPE_CHECKING:
    from PIL import Image

    from nunbit.chat import Talker
    from nunbit.generate import GenerationConfig

_TOGETHER = 8  # pictures: as many answers take little longer than one
WORDS = "Describe the picture in one sentence."


@click.command("caption")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--model", required=True, metavar="MODEL", help=MODEL_HELP)
@click.option("--say", default=WORDS, show_default=True, metavar="TEXT", help="What the model is asked to do.")
@talk_options
@click.option("--json", "as_json", is_flag=True, help="One JSON line a picture.")
def command(**options: Any) -> int:
    """Describe pictures in words: files, and what is in folders and below.

    A picture that cannot be read is reported and passed over; then the exit code is 1.

    \b
    Examples:
      nunbit caption photo.jpg --model tiny-vlm
      nunbit caption photos/ --model tiny-vlm --json --say "사진을 한 문장으로 설명해."
    """
    from nunbit.console import track
    from nunbit.images import find_images

    shared = take_options(options)
    config = shared.config()
    found = list(find_images(expand_paths(options["paths"])))
    files = [path for path in found if isinstance(path, Path)]
    rejected = [path for path in found if isinstance(path, Rejected)]
    if not files:
        raise no_photograph(options["paths"])
    (opener,) = shared.open([options["model"]], questions=len(files))
    captions = _captions(opener(), files, options["say"], config)
    for path, caption in track(captions, label="describing", total=len(files)):
        if isinstance(caption, Rejected):
            rejected.append(caption)
        elif options["as_json"]:
            print_json({"path": str(path), "caption": caption})
        else:
            click.echo(f"{one_line(str(path))}: {one_line(caption)}")
    report_rejected(rejected)
    return 1 if rejected else 0


def _captions(
    talker: Talker, files: list[Path], words: str, config: GenerationConfig
) -> Iterator[tuple[Path, str | Rejected]]:
    """Each picture with what the model says, or why it could not be read; several at a time."""
    from nunbit.chat import Message, answer_each

    for start in range(0, len(files), _TOGETHER):
        some = files[start : start + _TOGETHER]
        opened = [_open(path) for path in some]
        asked = [[Message("user", (image, words))] for image in opened if not isinstance(image, Rejected)]
        answers = answer_each(talker, asked, config)
        for path, image in zip(some, opened, strict=True):
            yield path, image if isinstance(image, Rejected) else next(answers).strip()


def _open(path: Path) -> Image.Image | Rejected:
    from nunbit.errors import ImageError
    from nunbit.images import open_image

    try:
        return open_image(path)[0]
    except ImageError as error:
        return Rejected(str(path), error.reason, error.message)
