"""How fast indexing is, and whether its memory stays flat as the folder grows.

Usage: python benchmarks/indexing.py PHOTOS [--copies 10]

Indexes the folder once, then `copies` times as many pictures (links to the same files under other names), each in a
process of its own, and prints pictures a second and the peak of resident memory.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CHILD = """
import resource, sys, nunbit
with nunbit.Index.open(sys.argv[2], nunbit.load("starter")) as index:
    report = index.add([sys.argv[1]])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(f"| {report.added:,} | {len(report.rejected)} | {report.added / report.seconds:.1f} | {peak:.0f} |")
"""


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--copies", type=int, default=10)
    arguments = parser.parse_args()
    print("| pictures | set aside | pictures/s | peak MB |\n|---|---|---|---|", flush=True)
    for copies in (1, arguments.copies):
        with tempfile.TemporaryDirectory() as scratch:
            photos = Path(scratch, "photos")
            for copy in range(copies):
                folder = photos / f"copy-{copy:03}"
                folder.mkdir(parents=True)
                for path in sorted(arguments.photos.iterdir()):
                    os.symlink(path.resolve(), folder / path.name)
            index = str(Path(scratch, "index.nunbit"))
            subprocess.run([sys.executable, "-c", CHILD, str(photos), index], check=True)


if __name__ == "__main__":
    main()
