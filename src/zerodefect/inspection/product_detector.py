"""The detector of a product: described in its file, and built again from that."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zerodefect.backbones.weight_files import WeightsError
from zerodefect.detector.checkpoint_file import CheckpointError, save_checkpoint
from zerodefect.detector.combined import Combined
from zerodefect.detector.contract import Detector
from zerodefect.detector.facts import JOIN
from zerodefect.inspection.archive import Archive, ProductError
from zerodefect.inspection.carried_weights import laid_out
from zerodefect.inspection.product_sections import CHECKPOINT, Made, Network
from zerodefect.methods import load_detector

_SIDE_CAR = str(Path(CHECKPOINT).with_suffix(".json"))


def networks_of(detector: Detector) -> dict[str, dict[str, Any]]:
    """``network_facts`` by the names of the method's facts; of a part as ``part.network``."""
    if isinstance(detector, Combined):
        return {
            f"{name}.{place}": facts
            for name, part in detector.each()
            for place, facts in networks_of(part).items()
        }
    return dict(zip(detector.info.backbones, detector.networks, strict=False))


def described(detector: Detector, asked: Mapping[str, Any] | None) -> Made:
    """The section of a product file that says what its detector is."""
    sizes = detector.sizes
    return Made(
        facts=detector.facts(),
        sizes=dict(sizes) if isinstance(sizes, Mapping) else sizes,
        networks={name: Network(**facts) for name, facts in networks_of(detector).items()},
        asked=None if asked is None else _in_json(asked),
        checkpoint=bool(_learned(detector)),
        memory_budget=None if detector.memory is None else detector.memory.budget,
        licence=detector.info.code_licence.removeprefix("ours; ").removesuffix("; ours"),
    )


def _in_json(asked: Mapping[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(json.dumps(asked, default=str))
    return {name: value for name, value in told.items() if value is not None}


def _learned(detector: Detector) -> list[Detector]:
    """The parts of a detector that have learned values."""
    parts = [part for _, part in detector.each()] if isinstance(detector, Combined) else [detector]
    return [part for part in parts if part.info.trained]


def checkpoint_members(detector: Detector) -> dict[str, bytes]:
    """Learned values with their side-car, as members of a product file; none where none are.

    Raises:
        CheckpointError: values that are of no checkpoint, or of several.
    """
    learned = _learned(detector)
    if not learned:
        return {}
    if len(learned) > 1 or learned[0].checkpoint is None:
        name = detector.info.name
        raise CheckpointError(
            f"{name}: its learned values are those of {len(learned) - 1 or 'no'} checkpoint"
            f"{'s' * (len(learned) > 2)}, and a product file holds those of one. Train it "
            "(zerodefect train), or load it with its checkpoint"
        )
    part = learned[0]
    known, origin, names = part.checkpoint, part.origin, part.learned_from
    with tempfile.TemporaryDirectory(prefix="zerodefect-") as folder:
        file = Path(folder) / CHECKPOINT
        made = save_checkpoint(part, file, origin or {}, names)
        part.checkpoint, part.origin = known, origin
        if made.sha256 != known:
            raise CheckpointError(
                f"{part.info.name}: its learned values are no longer those of its checkpoint. Save "
                "them (zerodefect train), and load them anew"
            )
        return {one: (Path(folder) / one).read_bytes() for one in (CHECKPOINT, _SIDE_CAR)}


# --- built again ---------------------------------------------------------------------------------


def rebuilt(archive: Archive, made: Made, given: Mapping[str, Any]) -> Detector:
    """The detector of a product file.

    Args:
        archive: the file.
        made: what it says of the detector.
        given: ``device``, and ``backbone`` and ``weights`` where the weights lie elsewhere than
            they did.

    Raises:
        WeightsError, CheckpointError: weights that are missing, or others.
        ProductError: this version builds another detector of it.
    """
    facts = made.facts
    sizes: Any = made.sizes
    square = isinstance(sizes, tuple) and sizes[0] == sizes[1]
    try:
        with tempfile.TemporaryDirectory(prefix="zerodefect-") as folder:
            loading = _where(archive, made, given, Path(folder))
            if made.checkpoint:
                loading["checkpoint"] = laid_checkpoint(archive, Path(folder))
            detector = load_detector(
                made.method,
                device=given.get("device") or "auto",
                precision=first_of(facts.get("precision")) or "float32",
                image_size=sizes[0] if square else None,
                **loading,
                **options_of(facts),
            )
    except WeightsError as error:
        raise WeightsError(f"{archive.path}: {error}") from None
    except (CheckpointError, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, ProductError):
            raise
        reason = f"its detector cannot be built ({error})"
        raise ProductError(archive.path, reason, _anew(archive.path)) from None
    if detector.sizes != sizes:
        detector.resize_inputs(sizes)
    if made.memory_budget is not None and detector.memory is not None:
        detector.memory.budget = made.memory_budget
    check_detector(archive.path, made, detector)
    return detector


def check_detector(path: Path, made: Made, detector: Detector) -> None:
    """Make sure that a detector is the one of a product file.

    Raises:
        WeightsError: it has other weights; both are named.
        ProductError: it differs in something else, which is named.
    """
    now = detector.facts()
    if now == made.facts:
        return
    for place, own in networks_of(detector).items():
        before = made.networks.get(place)
        if before and before.sha256 != own["sha256"]:
            raise WeightsError(
                f"{path}: learned on {before.name} (SHA-256 {before.sha256[:16]}...), and the "
                f"weights here are {own['name']} (SHA-256 {own['sha256'][:16]}...), whose scores "
                "do not compare. Name the file of the former (--backbone, --weights), or "
                f"{_lower(_anew(path))}"
            )
    then = made.facts
    differing = sorted(k for k in {*now, *then} if now.get(k) != then.get(k))
    told = (f"{k}: {then.get(k)} in the file, {now.get(k)} here" for k in differing)
    values = "; ".join(told)
    raise ProductError(path, f"its detector is another one here ({values[:300]})", _anew(path))


def _anew(path: Path) -> str:
    return f"Learn anew from the pictures inside: zerodefect calibrate --product {path} --renew"


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]


def first_of(value: Any) -> Any:
    """Of facts that are one value, or several in a list or by name: the first."""
    if isinstance(value, Mapping):
        value = list(value.values())
    return first_of(value[0]) if isinstance(value, list) and value else value


def options_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """All hyper-parameters, those of parts as ``part.option``."""
    options = dict(facts["config"])
    if JOIN in str(facts["method"]):
        for name, own in facts["parts"].items():
            options |= {f"{name}.{option}": value for option, value in own["config"].items()}
    return {name: tuple(v) if isinstance(v, list) else v for name, v in options.items()}


def _where(archive: Archive, made: Made, given: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """``backbone`` and ``weights`` of ``load_detector``, by the names of the method's facts."""
    names: dict[str, str] = {}
    files: dict[str, str] = {}
    for place, network in made.networks.items():
        name, file = (_of(given.get(option), place, made) for option in ("backbone", "weights"))
        if name is None and file is None:
            name, file = _found(archive, network, folder)
        elif name is None:
            name = _architecture(network)
        if name is not None:
            names[place] = str(name)
        if file is not None:
            files[place] = str(file)
    return {"backbone": names or None, "weights": files or None}


def _of(given: Any, place: str, made: Made) -> Any:
    """What was said of one network: by its name, or of the only one or all CLIPs as a whole."""
    if not isinstance(given, Mapping):
        alone = len(made.networks) == 1 or place.endswith(".clip")
        return given if alone else None
    return given.get(place)


def _architecture(network: Network) -> str | None:
    """``NAME`` of ``NAME (file)``; None where the name is that of a file with a side-car."""
    name = network.name.partition(" (")[0]
    return None if name.endswith((".safetensors", ".pt", ".pth", ".bin")) else name


def _found(archive: Archive, network: Network, folder: Path) -> tuple[str | None, str | None]:
    """Name and file of weights: by name alone, in the file, where they lay, or beside the file.

    Raises:
        WeightsError: local weights that lie in none of these places, or adapted ones that cannot
            be made again, which is done in ``folder``.
    """
    architecture = _architecture(network)
    if architecture == network.name:
        return architecture, None
    if own := laid_out(archive, network, folder):
        return str(own), None
    file = network.file or network.name
    beside = archive.path.parent / file.replace("\\", "/").rpartition("/")[2]
    for place in (Path(file), beside):
        if place.is_file():
            return architecture or str(place), str(place) if architecture else None
    raise WeightsError(
        f"its weights {network.name} (SHA-256 {network.sha256[:16]}...) are not on this machine; "
        f"they were {file}. Put the file beside the product file, or name it (--backbone, "
        "--weights; in Python backbone=, weights=)"
    )


def laid_checkpoint(archive: Archive, folder: Path) -> Path:
    """The checkpoint that a product file carries, laid into a folder where it can be loaded.

    Raises:
        ProductError: it is missing or damaged.
    """
    for name, data in zip(
        (CHECKPOINT, _SIDE_CAR), archive.read_all([CHECKPOINT, _SIDE_CAR]), strict=True
    ):
        (folder / name).write_bytes(data)
    return folder / CHECKPOINT
