"""``nunbit demo``: the main job on a few photographs, from start to end."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import click

from nunbit.cli.arguments import no_photograph, open_encoder
from nunbit.cli.output import report_rejected
from nunbit.errors import UsageError
from nunbit.picture_files import one_line

LABELS = (
    "cat",
    "person",
    "cup of coffee",
    "rocket",
    "motorcycle",
    "coins",
    "page of text",
    "flower",
    "palace",
    "galaxy of stars",
    "moon",
    "brick wall",
    "grass",
    "horse",
    "retina of an eye",
    "clock",
)
SEARCHES = ("a cup of coffee", "a rocket at the launch pad", "a flower", "고양이")
BUNDLED = {
    "skimage": ("data", ("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png",
                         "grass.png", "hubble_deep_field.jpg", "moon.png", "motorcycle_left.png", "page.png",
                         "retina.jpg", "rocket.jpg", "text.png")),
    "sklearn": ("datasets/images", ("china.jpg", "flower.jpg")),
}  # fmt: skip


@click.command("demo")
@click.argument("photos", required=False)
@click.option("--into", type=click.Path(path_type=Path), help="The index folder; by default named after the photos.")
def command(photos: str | None, into: Path | None) -> None:
    """Index photographs, say what is in them, search them in English and Korean.

    \b
    Examples:
      nunbit demo
      nunbit demo photos/ --into photos.nunbit
    """
    from nunbit.console import progress_bar
    from nunbit.index import Index
    from nunbit.recognition import Labels

    sources = [photos] if photos else [str(path) for path in _bundled()]
    into = into or Path(f"{Path(photos).resolve().name if photos else 'demo'}.nunbit")
    encoder = open_encoder("starter", None)
    labels = Labels(encoder, LABELS)
    with Index.open(into, encoder) as index:
        with progress_bar("indexing") as show:
            report = index.add(sources, progress=show)
        report_rejected(report.rejected)
        if len(index) == 0:
            raise no_photograph(sources)
        click.echo(f"{len(index)} photographs in {into} ({report.seconds:.1f} s)\n\nWhat it recognizes:")
        items = sorted(index.items(), key=lambda item: item.path)
        for item, row in zip(items, index.get_embeddings([item.id for item in items]), strict=True):
            best = "  ".join(f"{p.label} {p.probability:.0%}" for p in labels.predict(row, 2))
            click.echo(f"  {one_line(Path(item.path).name):24} {best}")
        for query in SEARCHES:
            hits = ", ".join(f"{one_line(Path(m.path).name)} {m.similarity:.2f}" for m in index.search(query, top_k=3))
            click.echo(f"\nSearch {query!r}:\n  {hits}")
    click.echo(
        "\nNow your own:\n"
        "  .venv/bin/nunbit index YOUR_PHOTOS --into photos.nunbit\n"
        '  .venv/bin/nunbit search "a dog on a beach" --in photos.nunbit --sheet hits.html\n'
        '  .venv/bin/nunbit recognize YOUR_PHOTOS --labels "cat,dog,coffee" --sheet sheet.html'
    )


def _bundled() -> list[Path]:
    """Photographs inside two packages; found, not imported."""
    found = []
    for package, (folder, names) in BUNDLED.items():
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise UsageError(f"{package} is not installed, and its photographs are shown", hint="nunbit demo PHOTOS")
        found += [Path(spec.origin).parent / folder / name for name in names]
    return found
