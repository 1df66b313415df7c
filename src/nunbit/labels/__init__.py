"""Labels by the million: a file of names becomes a folder that is searched in milliseconds."""

from nunbit.labels.build import BuildReport
from nunbit.labels.files import LabelEntry, RejectedRow
from nunbit.labels.label_set import LabelMatch, LabelSet

__all__ = ["BuildReport", "LabelEntry", "LabelMatch", "LabelSet", "RejectedRow"]
