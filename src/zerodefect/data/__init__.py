"""Data sets by their layout on disk, and procedural pictures."""

from zerodefect.data.check import FileCheck, check_files
from zerodefect.data.dataset import (
    Dataset,
    DatasetError,
    Problem,
    Sample,
    SplitRow,
    format_table,
)
from zerodefect.data.layouts import LAYOUTS, Layout, expected_layouts, load_dataset
from zerodefect.data.masks import MASK_RULES, read_mask, read_mask_file

__all__ = [
    "LAYOUTS",
    "MASK_RULES",
    "Dataset",
    "DatasetError",
    "FileCheck",
    "Layout",
    "Problem",
    "Sample",
    "SplitRow",
    "check_files",
    "expected_layouts",
    "format_table",
    "load_dataset",
    "read_mask",
    "read_mask_file",
]
