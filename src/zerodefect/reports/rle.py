"""Run-length encoding of masks in COCO's compressed text form.

A mask is read column by column; the lengths of its runs, beginning with background, are
written as text: from the fourth run on as the difference to the run two before, five bits per
character, least significant first, the sixth bit saying that more follows, shifted by 48
(Lin et al., "Microsoft COCO", ECCV 2014; the annotation format of the COCO data set).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from zerodefect.types import Region


def region_rle(region: Region, height: int, width: int) -> dict[str, Any]:
    """Encode a region's mask within its ``height`` x ``width`` image, holes included.

    Returns:
        As COCO writes it: ``size`` is ``[height, width]``, ``counts`` the text of the run lengths.

    Raises:
        ValueError: the region does not lie within the image.
    """
    x, y, box_width, box_height = region.box
    if x < 0 or y < 0 or x + box_width > width or y + box_height > height:
        raise ValueError(f"region {region.box} lies outside the {width} x {height} image")
    change = np.diff(np.pad(region.mask.T.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    # Where the runs of each column begin and end, counted through the image column by column.
    starts, ends = (
        (columns + x) * height + rows + y
        for columns, rows in (np.nonzero(change == 1), np.nonzero(change == -1))
    )
    # A run that reaches the bottom goes on at the top of the next column: end and start cancel.
    edges = np.setxor1d(starts, ends, assume_unique=True)
    counts = np.diff(edges, prepend=0, append=height * width).tolist()
    if counts[-1] == 0 and len(counts) > 1:
        counts.pop()
    return {"size": [height, width], "counts": _to_text(counts)}


def _to_text(counts: list[int]) -> str:
    characters = []
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            bits = value & 0x1F
            value >>= 5
            more = value != (-1 if bits & 0x10 else 0)  # the sign bit must be carried over
            characters.append(chr(48 + bits + (0x20 if more else 0)))
    return "".join(characters)
