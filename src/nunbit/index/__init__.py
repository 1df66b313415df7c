"""The index: pictures and their embeddings in one folder; add, update, forget, search, filter.

Place in the river: after ``encode``; ``search`` and the command line read from it. A folder holds

    index.json        which encoder made it, and the version of this format
    pictures.lance    the LanceDB table: a row for every good picture
    ledger.jsonl      a line for every bad picture: path, reason, detail
    writer.lock       locked while somebody writes; its content means nothing

Shapes: N rows, D width of an embedding. LanceDB is imported when a table is first touched, not before: it takes
more than a second.
"""

from nunbit.index.add import AddReport, Progress
from nunbit.index.backup import BackupReport, back_up
from nunbit.index.picture_index import Index
from nunbit.index.rows import Item

__all__ = ["AddReport", "BackupReport", "Index", "Item", "Progress", "back_up"]
