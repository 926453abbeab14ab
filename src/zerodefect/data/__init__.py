"""Data sets by their layout on disk."""

from zerodefect.data.check import FileCheck, check_files
from zerodefect.data.dataset import (
    Dataset,
    DatasetError,
    Problem,
    ProductWords,
    Sample,
    SplitRow,
    distinct,
    format_table,
    grouped,
    product_words,
)
from zerodefect.data.depths import found_depths, told_depths
from zerodefect.data.layout_registry import KnownSet, find_known
from zerodefect.data.layouts import CATALOGUE, LAYOUTS
from zerodefect.data.load_dataset import expected_layouts, load_dataset, open_dataset
from zerodefect.data.masks import MASK_RULES, opened_mask, read_channels, read_mask

__all__ = [
    "CATALOGUE",
    "LAYOUTS",
    "MASK_RULES",
    "Dataset",
    "DatasetError",
    "FileCheck",
    "KnownSet",
    "Problem",
    "ProductWords",
    "Sample",
    "SplitRow",
    "check_files",
    "distinct",
    "expected_layouts",
    "find_known",
    "format_table",
    "found_depths",
    "grouped",
    "load_dataset",
    "open_dataset",
    "opened_mask",
    "product_words",
    "read_channels",
    "read_mask",
    "told_depths",
]
