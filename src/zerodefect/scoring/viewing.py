"""How a picture is shown to the network: as a whole, in tiles, squared or not."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from zerodefect.backbones.backbone import whole_patches
from zerodefect.detector.contract import Input
from zerodefect.images import ImageError, Picture, Preprocess
from zerodefect.images.kept import shrink
from zerodefect.images.tiling import MOST_VIEWS, Tile, Tiling


@dataclass(frozen=True)
class Viewing:
    """How a picture is shown to the network.

    With ``keep_aspect`` the network's input takes the picture's aspect ratio at about the native
    number of patches, instead of the field's square.

    ``within`` is for a product that learned from pictures which its file keeps at the network's
    size: every picture is shrunk alike first, so that new ones compare with those.

    ``view`` is for parts with a point cloud: pictures are opened as that view of it, see
    ``images.part_files.open_part``.
    """

    tiling: Tiling | None = None  # cut into tiles besides the global view
    keep_aspect: bool = False
    within: tuple[int, int] | None = None  # (height, width) of the network's input, in pixels
    view: str | None = None  # one of images.cloud_views.VIEWS

    def facts(self) -> dict[str, Any]:
        """What decides scores, as plain data; ``within`` and ``view`` only where they do."""
        facts = asdict(self)
        if self.within is None:
            del facts["within"]
        else:
            facts["within"] = list(self.within)
        if self.view is None:
            del facts["view"]
        return facts

    def shown(self, picture: Picture) -> Picture:
        """The picture as all that is shown of it is cut from: shrunk where ``within`` says so."""
        if self.within is None:
            return picture
        own, (high, wide) = (picture.height, picture.width), self.within
        if self.tiles(picture):
            assert self.tiling is not None
            scale = max(self.within) / self.tiling.size
            high, wide = (max(1, round(side * scale)) for side in own)
        elif self.keep_aspect:
            high, wide = aspect_size(own, self.within, 1)
        return shrink(picture, (high, wide))

    def preprocess(self, needed: Input, picture: Picture) -> Preprocess:
        """How a picture or tile becomes one of a detector's inputs."""
        if not self.keep_aspect:
            return needed.preprocess
        own, native = (picture.height, picture.width), needed.preprocess.size
        return replace(needed.preprocess, size=aspect_size(own, native, needed.multiple))

    def tiles(self, picture: Picture) -> list[Tile]:
        """Tiles besides the global view; none where one tile would hold the picture.

        Raises:
            ImageError: more views than ``MOST_VIEWS``.
        """
        if self.tiling is None:
            return []
        check_views(picture.path, self.tiling, picture.height, picture.width)
        tiles = self.tiling.tiles(picture.height, picture.width)
        return tiles if len(tiles) > 1 else []


def aspect_size(picture: tuple[int, int], native: tuple[int, int], patch: int) -> tuple[int, int]:
    """Network input ``(height, width)`` of the picture's aspect ratio and about the native area.

    Both sides are multiples of ``patch``.
    """
    side = (native[0] * native[1]) ** 0.5
    ratio = (picture[0] / picture[1]) ** 0.5
    # beyond 4:1 a side would hold too few patches for windows
    ratio = min(max(ratio, 0.5), 2.0)
    height, width = (whole_patches(side * r, patch) for r in (ratio, 1 / ratio))
    return height, width


def check_views(path: str, tiling: Tiling, height: int, width: int) -> int:
    """Number of views that a picture takes.

    Raises:
        ImageError: there are more than ``MOST_VIEWS``.
    """
    views = tiling.views(height, width)
    if views > MOST_VIEWS:
        reason = (
            f"{views} views of the {width} x {height} pixels in tiles of {tiling.size} are more "
            f"than the {MOST_VIEWS} that are allowed"
        )
        larger = tiling.size_for(height, width)
        raise ImageError(path, reason, f"Take larger tiles: {larger} pixels would do well")
    return views
