"""``nunbit inspect``: from good parts alone, what is wrong with others."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nunbit.cli.arguments import expand_paths, model_option, no_photograph, open_encoder
from nunbit.cli.output import prediction_row, print_json, report_rejected
from nunbit.errors import ImageError, UsageError
from nunbit.picture_files import find_images, one_line
from nunbit.types import Rejected

if TYPE_CHECKING:
    from nunbit.cli.sheet import Card
    from nunbit.head import Head
    from nunbit.inspection import Inspection, Inspector, Region

_MIDDLE = 0.5  # of a bar on the sheet: the threshold


@click.group("inspect", no_args_is_help=False)
def command() -> None:
    """Find what is wrong with parts, from a few good ones.

    \b
    Examples:
      nunbit inspect fit good/ --into parts.inspector
      nunbit inspect check parts/ --with parts.inspector --sheet sheet.html
    """


@command.command("fit")
@click.argument("good", nargs=-1, required=True, metavar="GOOD...")
@click.option("--into", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder to write.")
@click.option(
    "--false-alarms",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="Share of good parts that may be called defective.",
)
@click.option(
    "--scale",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    help="Factor on the sides of pictures: 0.5 takes a quarter of the time and loses what is small.",
)
@click.option("--layers", metavar="N,N", help="Blocks of the encoder to read; by default those that it recommends.")
@click.option("--rows", type=click.IntRange(1), default=2000, show_default=True, help="Size of the memory bank.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of every random choice.")
@model_option
@click.option("--json", "as_json", is_flag=True, help="What was learned as one JSON line.")
def fit(good: Sequence[str], into: Path, layers: str | None, model: str, as_json: bool, **options: Any) -> None:
    """Learn from GOOD, 5 to 50 pictures of good parts, or their folders; no defect is needed.

    The line between good and defective is set on the good parts, each judged without having been seen, so that the
    stated share of them would be called defective.

    \b
    Examples:
      nunbit inspect fit good/ --into parts.inspector
      nunbit inspect fit good/ --into parts.inspector --false-alarms 0.1 --scale 0.5
    """
    from nunbit.console import progress_bar
    from nunbit.inspection import FitOptions, Inspector

    how = FitOptions(layers=_numbers(layers), **options)
    files, rejected = _files(good)
    encoder = open_encoder(model, "torch")
    with progress_bar("learning") as show:
        inspector = Inspector.fit(encoder, files, how, set_aside=rejected.append, progress=show)
    inspector.save(into)
    report_rejected(rejected)
    threshold = inspector.threshold
    if as_json:
        row: dict[str, Any] = {
            "good": threshold.good_parts,
            "rejected": len(rejected),
            "rows": len(inspector.bank.rows),
        }
        row |= {"threshold": round(threshold.value, 6), "false_alarms": threshold.false_alarms}
        print_json(row | {"promised": round(threshold.promised, 6), "is_kept": threshold.is_kept})
    else:
        click.echo(f"{threshold.good_parts} good parts, {len(inspector.bank.rows)} patches kept")
        click.echo(f"defective above {threshold.value:.2f}: {threshold.words()}")
    click.echo(f"wrote {into}", err=True)


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """The options of ``check``, under the names that click gives them."""

    paths: tuple[str, ...]
    inspector: Path
    kinds: Path | None
    into: Path | None
    sheet: Path | None
    model: str
    strict: bool
    as_json: bool


@dataclass(slots=True)
class _Check:
    """One run of ``check``.

    Attributes:
        request: What was asked for.
        inspector: Looks.
        head: Names kinds of defects, if there is one.
        rejected: What was set aside, as it comes.
    """

    request: CheckRequest
    inspector: Inspector
    head: Head | None
    rejected: list[Rejected] = field(default_factory=list)

    def cards(self, files: Sequence[Path]) -> Iterator[Card]:
        """Inspect, print and draw one picture after the other."""
        from nunbit.cli.sheet import Card
        from nunbit.console import track
        from nunbit.images import open_image
        from nunbit.inspection import draw_inspection, name_kinds

        for path in track(files, label="inspecting", total=len(files)):
            try:
                picture, _ = open_image(path)
            except ImageError as error:
                self.rejected.append(Rejected(str(path), error.reason, error.message))
                continue
            found = self.inspector.inspect(picture)
            if self.head is not None:
                found = name_kinds(self.inspector.encoder, self.head, picture, found)
            self._print(path, found)
            drawn = draw_inspection(picture, found)
            if self.request.into is not None:
                drawn.save(self.request.into / f"{path.stem}.png")
            yield Card(str(path), tuple(_bars(found)), drawn)

    def _print(self, path: Path, found: Inspection) -> None:
        if self.request.as_json:
            print_json({"path": str(path), **_row(found)})
            return
        verdict = "defective" if found.is_defective else "good"
        places = "".join(f"\n  {_place(region)} {region.score:.2f}{_kind(region)}" for region in found.regions)
        click.echo(f"{one_line(str(path))}: {verdict}, {found.score:.2f} (line at {found.threshold:.2f}){places}")


@command.command("check")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--with",
    "inspector",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder that `nunbit inspect fit` wrote.",
)
@click.option("--kinds", type=click.Path(file_okay=False, path_type=Path), help="Head that names kinds of defects.")
@click.option("--into", type=click.Path(file_okay=False, path_type=Path), help="Folder for pictures with their heat.")
@click.option("--sheet", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with all of them.")
@model_option
@click.option("--strict", is_flag=True, help="Exit 1 if any picture was set aside.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line a picture.")
def check(**options: Any) -> int:
    """Say of each picture whether the part is good, and where it is not.

    --kinds takes a head that `nunbit adapt fit` learned from a few pictures of each kind of defect, cut out.

    \b
    Examples:
      nunbit inspect check parts/ --with parts.inspector
      nunbit inspect check part.jpg --with parts.inspector --into heat/ --sheet sheet.html
      nunbit inspect check parts/ --with parts.inspector --kinds defects.head --json
    """
    from nunbit.cli.sheet import write_sheet
    from nunbit.head import load_head
    from nunbit.inspection import Inspector

    request = CheckRequest(**options)
    files, rejected = _files(request.paths)
    _check_names(request.into, files)
    encoder = open_encoder(request.model, "torch")
    head = None if request.kinds is None else load_head(request.kinds, encoder)
    run = _Check(request, Inspector.load(request.inspector, encoder), head, rejected)
    if request.into is not None:
        request.into.mkdir(parents=True, exist_ok=True)
    if request.sheet is None:
        deque(run.cards(files), maxlen=0)
    else:
        write_sheet(request.sheet, "What nunbit finds wrong", run.cards(files))
        click.echo(f"wrote {request.sheet}", err=True)
    report_rejected(run.rejected)
    return 1 if request.strict and run.rejected else 0


def _files(paths: Sequence[str]) -> tuple[list[Path], list[Rejected]]:
    found = list(find_images(expand_paths(paths)))
    files = [one for one in found if isinstance(one, Path)]
    if not files:
        raise no_photograph(paths)
    return files, [one for one in found if isinstance(one, Rejected)]


def _numbers(layers: str | None) -> tuple[int, ...] | None:
    try:
        return None if layers is None else tuple(map(int, layers.split(",")))
    except ValueError as error:
        raise UsageError(f"--layers is {layers!r}, expected numbers between commas", hint="such as 4,7") from error


def _check_names(into: Path | None, files: Sequence[Path]) -> None:
    """Refuse to write two pictures under one name, or over a picture that is inspected."""
    names: dict[str, Path] = {}
    for file in files if into is not None else ():
        other = names.setdefault(file.stem, file)
        if other != file:
            raise UsageError(
                f"{other} and {file} would be one picture in {into}", hint="check them one after the other"
            )
        if into is not None and (into / f"{file.stem}.png").resolve() == file.resolve():
            raise UsageError(f"{file} would be written over", hint="give --into another folder")


def _bars(found: Inspection) -> Iterator[tuple[str, float, str]]:
    verdict = "defective" if found.is_defective else "good"
    yield verdict, _MIDDLE * found.score / max(found.threshold, 1e-12), f"{found.score:.2f}"
    for region in found.regions:
        if region.kinds:
            best = region.kinds[0]
            yield f"{best.label}, {_place(region)}", best.probability, f"{best.probability:.0%}"


def _place(region: Region) -> str:
    return f"at {region.left},{region.top} to {region.right},{region.bottom}"


def _kind(region: Region) -> str:
    return f" {region.kinds[0].label} {region.kinds[0].probability:.0%}" if region.kinds else ""


def _row(found: Inspection) -> dict[str, Any]:
    """The documented JSON form of an inspection."""
    regions = [
        {"box": list(region.box), "score": round(region.score, 6)}
        | ({"kinds": [prediction_row(kind) for kind in region.kinds]} if region.kinds else {})
        for region in found.regions
    ]
    return {
        "score": round(found.score, 6),
        "threshold": round(found.threshold, 6),
        "is_defective": found.is_defective,
        "regions": regions,
    }
