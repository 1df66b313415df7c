"""Inspection: from a few good parts alone, whether another part is defective, and where."""

from nunbit.inspection.fitting import FitOptions
from nunbit.inspection.inspector import Inspection, Inspector
from nunbit.inspection.kinds import cut_regions, name_kinds
from nunbit.inspection.memory_bank import MemoryBank, greedy_coreset, make_bank
from nunbit.inspection.patches import Look, patch_grid
from nunbit.inspection.pictures import draw_inspection
from nunbit.inspection.regions import Region, find_regions
from nunbit.inspection.threshold import Threshold, set_threshold

__all__ = [
    "FitOptions",
    "Inspection",
    "Inspector",
    "Look",
    "MemoryBank",
    "Region",
    "Threshold",
    "cut_regions",
    "draw_inspection",
    "find_regions",
    "greedy_coreset",
    "make_bank",
    "name_kinds",
    "patch_grid",
    "set_threshold",
]
