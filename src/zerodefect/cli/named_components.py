"""``zerodefect components``: the clusters of good pictures, to be named once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from zerodefect.cli.opening import load_inspector
from zerodefect.cli.options import (
    DetectorOptions,
    GoodPaths,
    ProductOptions,
    object_option,
    option,
    output_option,
)
from zerodefect.cli.picture_options import PictureOptions
from zerodefect.cli.telling import LeftOut, progress, tell

if TYPE_CHECKING:
    from zerodefect.images import Picture
    from zerodefect.inspection.inspector import Inspector


def components(
    good: GoodPaths,
    *,
    object: str | None = object_option(),
    count: int = option(
        12, "Clusters, at most.", "--count", min=2, max=60, rich_help_panel="Product"
    ),
    detector: DetectorOptions,
    pictures: PictureOptions,
    output: Path | None = output_option(
        None,
        "File of clusters; default: the object's name.clusters, with a page beside it.",
        "NAME.clusters",
    ),
    overwrite: bool = option(
        False, "Replace a file of that name.", "--overwrite", rich_help_panel="Output"
    ),
) -> None:
    """Show what good pictures consist of, so that you can name it for rules.

    Clusters the patches of good pictures and writes a page with the numbered clusters in colours.
    Name some of them: calibrate good/ --clusters NAME.clusters --component "liquid=cluster 3"
    --rule "fill level as usual".

    Exit code 0: file and page are written. 1: nothing could be done. 3: they are written, but some
    files could not be used.
    """
    from zerodefect.images.part_files import find_parts

    files = find_parts(good or [])
    file, page = _targets(output, object, overwrite)
    if not files:
        raise ValueError("name pictures or folders of good parts")
    inspector = load_inspector(ProductOptions(object=object), detector, pictures, files)
    failures = LeftOut()
    opened = _opened(inspector, files, failures)
    seen = _clustered(inspector, opened, count, file, page, object)
    tell(f"clusters: {seen}, of {len(opened)} good picture{'s' * (len(opened) != 1)}")
    tell(f"file:     {file}")
    tell(f"page:     {page}")
    tell(
        f"next:     look at the page, then: zerodefect calibrate more-good/ --clusters {file} "
        "--component 'liquid=cluster 3' --rule 'fill level as usual' --output NAME.zd"
    )
    if failures:
        raise typer.Exit(3)


def _opened(inspector: Inspector, files: list[Path], failures: LeftOut) -> list[Picture]:
    """Some pictures, each once, evenly spread over the files.

    Raises:
        ValueError: none of them can be used.
    """
    from zerodefect.inspection.rules.component_learning import MOST_PICTURES
    from zerodefect.inspection.sources import GoodPictures, evenly

    some = files if len(files) <= MOST_PICTURES else evenly(files, MOST_PICTURES)
    opened = GoodPictures(inspector.open_good, failures.add).pictures(some)
    if not opened:
        raise ValueError("none of the pictures can be used. Name others")
    return opened


def _clustered(
    inspector: Inspector,
    opened: list[Picture],
    count: int,
    file: Path,
    page: Path,
    name: str | None,
) -> int:
    """Write file and page; how many clusters there are."""
    from zerodefect.inspection.rules.component_learning import save_clusters
    from zerodefect.inspection.rules.component_model import Clusters
    from zerodefect.inspection.sources import digest
    from zerodefect.reports.components_page import write_components_page

    rows = []
    with progress("clustering", len(opened)) as bar:
        for picture in opened:
            rows.append(inspector.rows_of(picture))
            bar(advance=1)
    clusters = Clusters.of(rows, count, [digest(picture) for picture in opened])
    save_clusters(clusters, file)
    shown = [
        (Path(picture.path).name, picture.to_uint8(), clusters.numbers(one))
        for picture, one in zip(opened, rows, strict=True)
    ]
    write_components_page(page, name or file.stem, shown, len(clusters.centres), file)
    return len(clusters.centres)


def _targets(output: Path | None, name: str | None, overwrite: bool) -> tuple[Path, Path]:
    """The file of clusters and the page.

    Raises:
        ValueError: one is there already.
    """
    slug = re.sub(r"[^\w]+", "-", (name or "").lower()).strip("-")[:40]
    file = output or Path(f"{slug or 'product'}.clusters")
    if file.suffix == ".html":
        raise ValueError(f"--output {file}: the page is written beside it; name NAME.clusters")
    page = file.with_name(f"{file.stem}-clusters.html")
    for one in (file, page):
        if one.exists() and not overwrite:
            raise ValueError(
                f"--output {one}: it is there already. Name another, or add --overwrite"
            )
    file.parent.mkdir(parents=True, exist_ok=True)
    return file, page
