"""Adapted weights that travel in a product file, as what differs from the package's own model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zerodefect.backbones.adapted_weights import difference, is_adapted, restore
from zerodefect.backbones.weight_files import WeightsError, file_hash
from zerodefect.inspection.archive import Archive
from zerodefect.inspection.product_sections import WEIGHTS, Network

_MOST = 2**28  # bytes of a member
_MODEL = ".safetensors"


def weights_members(
    networks: Mapping[str, Mapping[str, Any]], former: Archive | None
) -> dict[str, bytes]:
    """Members for every network whose weights were adapted from the package's model.

    Args:
        networks: facts of a detector's networks.
        former: product file that the detector came from, whose members are kept.
    """
    members: dict[str, bytes] = {}
    for facts in networks.values():
        digest, file = str(facts["sha256"]), Path(facts.get("file") or "")
        names = _members(digest)
        if former is not None and all(name in former for name in names):
            members |= dict(zip(names, former.read_all(names, _MOST), strict=True))
        elif file.suffix == _MODEL and is_adapted(file) and file_hash(file) == digest:
            changed, side_car = difference(file), file.with_suffix(".json")
            if changed is not None and side_car.is_file():
                members |= dict(zip(names, (changed, side_car.read_bytes()), strict=True))
    return members


def laid_out(archive: Archive, network: Network, folder: Path) -> Path | None:
    """The weights file of a network, made again in a folder; None where the archive carries none.

    Raises:
        ProductError: a member that cannot be read.
        WeightsError: damaged weights, or such as were adapted from another model.
    """
    names = _members(network.sha256)
    if not all(name in archive for name in names):
        return None
    name = network.name
    if Path(name.replace("\\", "/")).name != name or not name.endswith(_MODEL):
        raise WeightsError(f"its adapted weights have no name of a weights file ({name!r})")
    changed, side_car = archive.read_all(names, _MOST)
    own = folder / Path(names[0]).stem
    own.mkdir(exist_ok=True)
    (own / "changed").write_bytes(changed)
    restore(own / "changed", own / name)
    (own / name).with_suffix(".json").write_bytes(side_car)
    return own / name


def asked_here(
    archive: Archive, networks: Mapping[str, Network], asked: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """What a detector was asked for by, with weights that the archive carries from a folder.

    Raises:
        ProductError, WeightsError: as of ``laid_out``.
    """
    backbone = asked.get("backbone")
    for network in networks.values():
        if isinstance(backbone, str) and Path(backbone).name == network.name:
            own = laid_out(archive, network, folder)
            return {**asked, "backbone": str(own)} if own else dict(asked)
    return dict(asked)


def _members(digest: str) -> tuple[str, str]:
    place = f"{WEIGHTS}{digest[:16]}"
    return f"{place}{_MODEL}", f"{place}.json"
