"""Options of pictures: how they are read, shown to the network, and what of them counts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zerodefect.cli.options import BitDepth, Options, option

if TYPE_CHECKING:
    from zerodefect.images.tiling import Tiling


@dataclass(frozen=True)
class ViewOptions(Options, panel="Pictures"):
    """How pictures are shown to the network, and what of them counts."""

    tile: int | None = option(
        None, "Side of tiles in pixels, for large pictures; 4096 views of one at most.", min=16
    )
    overlap: float = option(0.25, "Of neighbour tiles.", min=0.0, max=0.5, metavar="SHARE")
    keep_aspect: bool = option(False, "Keep the aspect ratio instead of squaring.", "--keep-aspect")
    roi: str | None = option(
        None,
        "Only this is inspected: what is white in a mask picture, or what words name.",
        metavar="FILE|WORDS",
    )
    ignore: Path | None = option(None, "Mask picture: what is white does not count.")
    view: Literal["depth", "normals", "curvature"] | None = option(
        None,
        "Of parts with a point cloud (xyz/ beside rgb/): judge this view of it, not the picture.",
        metavar="depth|normals|curvature",
    )

    def tiling(self) -> Tiling | None:
        """How pictures are cut, if they are."""
        from zerodefect.images.tiling import Tiling

        return Tiling(self.tile, self.overlap) if self.tile else None

    def opened(self) -> dict[str, Any]:
        """``viewing``, and ``roi`` and ``ignore`` as pictures.

        Raises:
            ImageError: a mask picture cannot be read.
            ValueError: an area by words, which is not measured.
        """
        from zerodefect.images import open_image
        from zerodefect.inspection.word_sight import opened_mask
        from zerodefect.scoring.viewing import Viewing

        return {
            "viewing": Viewing(self.tiling(), self.keep_aspect, view=self.view),
            "roi": opened_mask(self.roi),
            "ignore": open_image(self.ignore) if self.ignore else None,
        }


@dataclass(frozen=True)
class PictureOptions(ViewOptions, panel="Pictures"):
    """How pictures are read, shown to the network, and what of them counts."""

    bit_depth: BitDepth = None
