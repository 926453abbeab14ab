"""What the options name, opened: an inspector, data sets, words for products."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zerodefect.cli.options import (
    DetectorOptions,
    KindOptions,
    ProductOptions,
)
from zerodefect.cli.picture_options import PictureOptions, ViewOptions
from zerodefect.cli.telling import say

if TYPE_CHECKING:
    from zerodefect.inspection.inspector import Inspector


def load_inspector(
    product: ProductOptions,
    detector: DetectorOptions,
    pictures: PictureOptions,
    files: Sequence[Path],
    vocabulary: Path | None = None,
    refine: str | None = None,
) -> Inspector:
    """Load a product file, or a method that is told name, inspected area and references.

    Args:
        product, detector, pictures: options. A bit depth that is not stated is inferred, once,
            from references and files together.
        files: pictures that will be inspected.
        vocabulary: file of the defect kinds.
        refine: segmenter that draws regions sharply, see ``Refiner.load``.

    Raises:
        WeightsError: networks that cannot be had.
        ProductError: options that contradict the product file.
    """
    from zerodefect.images.part_files import find_parts
    from zerodefect.inspection.load_inspector import load, load_product
    from zerodefect.inspection.refinement import Refiner
    from zerodefect.inspection.teachable import DEFAULT_OBJECT
    from zerodefect.prompts.vocabulary import Vocabulary

    refiner = Refiner.load(refine, detector.device) if refine else None  # before the long work
    options = {**product.keywords(), **detector.keywords(), **pictures.keywords()}
    if product.product:
        words = Vocabulary.load(vocabulary) if vocabulary else None
        inspector = load_product(product.product, vocabulary=words, **options)
        inspector.refiner = refiner
        inspector.infer_bit_depth(files)
        tiling = inspector.viewing.tiling
        tell_views(ViewOptions(tiling.size, tiling.overlap) if tiling else ViewOptions(), files)
        return inspector
    references = find_parts(options.pop("references") or [])
    tell_views(pictures, [*files, *references])
    inspector = load(vocabulary=vocabulary, **options)
    inspector.refiner = refiner
    inspector.infer_bit_depth([*references, *files])
    if references:
        inspector.remember(references)
    if inspector.object is None and "words" in inspector.detector.info.needs:
        say(f"no --object given: the texts say {DEFAULT_OBJECT!r}; a name usually helps")
        inspector.describe(DEFAULT_OBJECT)
    return inspector


def teach(inspector: Inspector, kinds: KindOptions) -> None:
    """Teach the kinds of defects that examples are given of, and say how well they are told apart.

    Raises:
        KindsError, ImageError, FileNotFoundError: as of ``Inspector.teach_kinds``.
    """
    for name, given in kinds.examples.items():
        if len(given) > 1:
            say(f"--kind {name}: given {len(given)} times, its examples are taken together")
    if kinds.examples:
        say(inspector.teach_kinds(kinds.examples).told())


def tell_views(shown: ViewOptions, files: Iterable[Path]) -> None:
    """Say before the work how much of it tiles make, where that is a lot.

    Raises:
        ImageError: a picture would take more views than are allowed.
    """
    tiling = shown.tiling()
    if not tiling:
        return
    from zerodefect.images import ImageError, picture_size
    from zerodefect.images.tiling import MANY_VIEWS
    from zerodefect.scoring.viewing import check_views

    views, largest = [], (0, 0)
    for file in files:
        try:
            width, height = picture_size(file)
        except ImageError:
            continue  # it is reported when its turn comes
        views.append(check_views(str(file), tiling, height, width))
        largest = max(largest, (height, width), key=lambda size: tiling.views(*size))
    if views and max(views) > MANY_VIEWS:
        pictures = "1 picture takes" if len(views) == 1 else f"{len(views)} pictures take"
        say(
            f"tiles of {shown.tile} pixels: {pictures} {sum(views)} views, up to {max(views)} "
            f"each; with --tile {tiling.size_for(*largest)} no picture would take more than "
            f"{MANY_VIEWS}"
        )
