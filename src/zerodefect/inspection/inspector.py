"""What a user holds in hand: a detector with a product's name, references, a policy and regions."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zerodefect.detector.contract import Detector
from zerodefect.images import ImageError, Picture, find_images, open_image
from zerodefect.inspection.calibration import calibrate
from zerodefect.inspection.conformal import CalibrationError, check_provable
from zerodefect.inspection.explain import explain
from zerodefect.inspection.policy import Policy
from zerodefect.inspection.regions import find_regions
from zerodefect.methods import load_detector
from zerodefect.prompts.vocabulary import Vocabulary
from zerodefect.scoring.scorer import Scored, Scorer, Viewing, read_area
from zerodefect.types import Failure, Inspection

Source = str | Path | bytes | Image.Image | np.ndarray | Picture
DEFAULT_OBJECT = "object"


def load(
    method: str | None = None,
    *,
    checkpoint: str | Path | None = None,
    backbone: str | None = None,
    weights: str | Path | None = None,
    device: str = "auto",
    precision: str = "float32",
    image_size: int | None = None,
    viewing: Viewing | None = None,
    bit_depth: int | None = None,
    policy: Policy | str | Path | None = None,
    vocabulary: Vocabulary | None = None,
    **options: Any,
) -> Inspector:
    """Load a method ready to inspect.

    Args:
        method: a name from ``zerodefect methods``; by default the checkpoint's, or
            what the weights' side-car recommends, or WinCLIP.
        checkpoint: learned values of a trained method, from ``zerodefect train`` or ``zerodefect
            import``; input size, hyper-parameters and backbone are then as they were learned.
        backbone: None for the embedded model, ``"MODEL/TAG"`` of open_clip, or a weights file.
        weights: local weights file for the architecture that ``backbone`` names.
        device: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...
        precision: of the towers: float32, or bfloat16, which is faster where the processor has it
            and changes scores in the third digit.
        image_size: side of the network's input in pixels, instead of the weights' own.
        viewing: tiles for large pictures, aspect ratio kept; by default the whole picture, squared.
        bit_depth: significant bits of 16-bit pictures, where not 16.
        policy: a calibration, or the file of one.
        vocabulary: defect kinds to tell apart, instead of the default ones.
        options: hyper-parameters of the method.

    Raises:
        ValueError: unknown method, option or device, an option's value of another type, or a
            policy file that cannot be read.
        CheckpointError: a checkpoint that does not fit, or none for a method that must be trained.
        WeightsError: weights that cannot be had or do not fit.
    """
    detector = load_detector(
        method,
        checkpoint=checkpoint,
        backbone=backbone,
        weights=weights,
        device=device,
        precision=precision,
        image_size=image_size,
        **options,
    )
    if policy is not None and not isinstance(policy, Policy):
        policy = Policy.load(policy)
    return Inspector(
        detector,
        policy=policy,
        vocabulary=vocabulary,
        viewing=viewing,
        bit_depth=bit_depth,
    )


class Inspector:
    """Inspects images with one detector.

    Attributes:
        detector: gives raw scores and maps.
        policy: the user's calibration, or None.
        vocabulary: defect kinds to tell apart.
        scorer: shows pictures to the detector.
        bit_depth: significant bits of 16-bit pictures, where not 16.
        roi, ignore: mask pictures: what counts (white in ``roi``) and what does not (white in
            ``ignore``), for every picture; nothing outside changes any result.
    """

    def __init__(
        self,
        detector: Detector,
        *,
        policy: Policy | None = None,
        vocabulary: Vocabulary | None = None,
        viewing: Viewing | None = None,
        bit_depth: int | None = None,
    ) -> None:
        self.detector = detector
        self.scorer = Scorer(detector, viewing)
        self.bit_depth = bit_depth
        self.policy = policy
        self.vocabulary = vocabulary or Vocabulary.default()
        self._areas: dict[str, tuple[Picture, str]] = {}  # each with its digest
        self._references: list[Picture] = []
        self._digests: list[str] = []
        self._automatic: tuple[str, Policy] | None = None  # fingerprint it was made for

    @property
    def roi(self) -> Picture | None:
        """Mask picture: only what is white is inspected."""
        return self._areas["roi"][0] if "roi" in self._areas else None

    @roi.setter
    def roi(self, picture: Picture | None) -> None:
        self._set_area("roi", picture)

    @property
    def ignore(self) -> Picture | None:
        """Mask picture: what is white does not count."""
        return self._areas["ignore"][0] if "ignore" in self._areas else None

    @ignore.setter
    def ignore(self, picture: Picture | None) -> None:
        self._set_area("ignore", picture)

    def _set_area(self, name: str, picture: Picture | None) -> None:
        self._areas.pop(name, None)
        if picture is not None:
            self._areas[name] = picture, _digest(picture)

    # --- knowledge ----------------------------------------------------------------------------

    @property
    def object(self) -> str | None:
        """Product name in use."""
        return self.detector.object_name

    def describe(self, object: str, vocabulary: Vocabulary | None = None) -> None:
        """Name the product; optionally replace the defect vocabulary.

        Raises:
            ValueError: an empty name, or a prompt that the text tower cannot read.
            UnsupportedError: the method takes no words.
        """
        vocabulary = vocabulary or self.vocabulary
        self.detector.describe(" ".join(object.split()), vocabulary)
        self.vocabulary = vocabulary

    def remember(self, references: Source | Iterable[Source]) -> int:
        """Add normal reference images (files, folders, arrays); returns how many.

        A picture that is a reference already is not added again: left out in turn, it would find
        its copy, and the limits learned from it would be too low.

        Raises:
            ImageError, FileNotFoundError: a reference cannot be used. References are few and all
                matter, so none is skipped.
            UnsupportedError: the method takes no references.
        """
        opened = [self._open(source) for source in _expand(references)]
        pictures = {_digest(p): p for p in opened}
        new = {digest: p for digest, p in pictures.items() if digest not in self._digests}
        if not new:
            return 0
        self._references += new.values()
        self._digests += new
        self._remember(list(new.values()))
        return len(new)

    def _remember(self, pictures: Sequence[Picture]) -> None:
        views = (v for p in pictures for v in self.scorer.views(p, self._area(p)))
        self.scorer.remember(views)

    def _area(self, picture: Picture) -> np.ndarray | None:
        return read_area(self.roi, self.ignore, picture.height, picture.width)

    def forget(self) -> None:
        """Drop all references."""
        self.detector.forget()
        self._references, self._digests = [], []

    def fingerprint(self) -> str:
        """Hash of everything besides the image that decides its score; 16 hexadecimal digits.

        The vocabulary names regions and decides no score; the weights count by their content, not
        by the name or path they were loaded from.
        """
        facts = {k: v for k, v in self._facts().items() if k not in ("vocabulary", "backbone")}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    def _prepare(self, object: str | None) -> None:
        if object is not None and " ".join(object.split()) != self.object:
            self.describe(object)
        elif self.object is None and "words" in self.detector.info.knows_from:
            self.describe(DEFAULT_OBJECT)

    # --- calibration ---------------------------------------------------------------------------

    def calibrate(
        self,
        good: Source | Iterable[Source],
        *,
        object: str | None = None,
        false_alarms: float | None = None,
        review_rate: float | None = None,
        leave_one_out: bool = False,
        batch_size: int = 8,
        on_scored: Callable[[int], None] = lambda count: None,
        on_failure: Callable[[Failure], None] | None = None,
    ) -> Policy:
        """Learn the limits from good images only, use them from now on, and return them.

        A picture that is given several times counts once: copies prove nothing.

        Args:
            good: files, folders or arrays of good parts.
            object: product name.
            false_alarms: largest share of good parts that may be called defective.
            review_rate: largest share of good parts that may be called unsure or worse.
            leave_one_out: the good images are the references, too: each is scored against the
                others, and afterwards all are remembered.
            batch_size: images that go through the network at once.
            on_scored: called with the number of images just scored.
            on_failure: called with every image that cannot be read; it is left out, and the
                guarantee is that of the rest.

        Raises:
            CalibrationError: too few images for the asked rate; it says how many it takes.
            FileNotFoundError: a file or folder is not there.
            ImageError: an image cannot be read, and there is no ``on_failure``.
        """
        self._prepare(object)
        images = _expand(good)
        if isinstance(images, Sequence) and false_alarms is not None:
            check_provable(false_alarms, len(images), "false-alarm rate")  # before the long work
        failures: list[Failure] = []

        def readable(sources: Iterable[Source]) -> list[Picture]:
            opened = [self._open_or_tell(source, on_failure) for source in sources]
            failures.extend(one for one in opened if isinstance(one, Failure))
            return [one for one in opened if isinstance(one, Picture)]

        if leave_one_out:
            pictures = readable(images)
            if not pictures:
                raise CalibrationError("no good image can be read. Give at least one.")
            self.forget()
            self.remember(pictures)
            self.policy = self._left_out_policy(false_alarms, review_rate, _uncounted(0, failures))
            on_scored(len(self._references))
            return self.policy
        self.scorer.batch_size = batch_size
        scored: list[Scored] = []
        seen: set[str] = set()
        copies = 0
        for sources in _batches(images, batch_size):
            given = readable(sources)
            opened = {_digest(p): p for p in given}
            pictures = [p for digest, p in opened.items() if digest not in seen]
            copies += len(given) - len(pictures)
            seen |= opened.keys()
            if seen & set(self._digests):
                raise ValueError(
                    "a calibration image is also a reference, so that its score says nothing of "
                    "new parts. Keep the two apart, or calibrate the references themselves "
                    "(leave-one-out)"
                )
            # the maps themselves are not kept: large pictures would fill the memory
            scored += [dataclasses.replace(s, map=_NO_MAP) for s in self._score(pictures)]
            on_scored(len(sources))
        self.policy = calibrate(
            [s.score for s in scored],
            [s.highest for s in scored],
            form="split",
            map_range=self.detector.map_range,
            false_alarms=false_alarms,
            review_rate=review_rate,
            notes=_uncounted(copies, failures),
            **self._identity(),
        )
        return self.policy

    def active_policy(self) -> Policy:
        """Return the policy that verdicts follow.

        The user's own, if there is one. Else, with two or more references, one learned from them
        by leave-one-out. Else a provisional one, which every output names uncalibrated.

        Raises:
            PolicyMismatch: the user's policy was made for other weights, words, settings or
                references.
        """
        if self.policy is not None:
            self.policy.check(**self._identity())
            return self.policy
        fingerprint = self.fingerprint()
        if self._automatic is None or self._automatic[0] != fingerprint:
            many = len(self._references) >= 2  # a single image has no others
            made = self._left_out_policy(None, None) if many else self._provisional_policy()
            self._automatic = (fingerprint, made)
        return self._automatic[1]

    def _left_out_policy(
        self, false_alarms: float | None, review_rate: float | None, notes: Sequence[str] = ()
    ) -> Policy:
        pictures = self._references
        self.detector.forget()
        try:
            scored = self.scorer.score_left_out(pictures, [self._area(p) for p in pictures])
        finally:
            self.detector.forget()
            self._remember(pictures)
        return calibrate(
            [s.score for s in scored],
            [s.highest for s in scored],
            form="leave-one-out",
            map_range=self.detector.map_range,
            false_alarms=false_alarms,
            review_rate=review_rate,
            monotone=self.detector.monotone_memory,
            notes=notes,
            **self._identity(),
        )

    def _provisional_policy(self) -> Policy:
        low, high = self.detector.map_range
        neutral = self.detector.neutral_score
        region_limit = (low + high) / 2 if neutral is None else neutral
        if self._references:
            # One reference cannot be left out; its mirror images show at least how far a part
            # like it lies from itself.
            (picture,) = self._references
            mirrored = [picture.pixels[:, ::-1], picture.pixels[::-1]]
            seen = self._score([dataclasses.replace(picture, pixels=p) for p in mirrored])
            neutral = max(s.score for s in seen)
            region_limit = max(s.highest for s in seen)
            high = max(2 * region_limit - low, low + 1e-3)
        return Policy.provisional(
            neutral=neutral, map_range=(low, high), region_limit=region_limit, **self._identity()
        )

    def _identity(self) -> dict[str, Any]:
        return {
            "method": self.detector.info.name,
            "fingerprint": self.fingerprint(),
            "object": self.object,
        }

    # --- inspection -----------------------------------------------------------------------------

    def inspect(self, source: Source, object: str | None = None) -> Inspection:
        """Inspect one image.

        Args:
            source: path, encoded bytes, PIL image, ``(H, W)`` or ``(H, W, 3)`` array, Picture.
            object: product name; stays in use until another is given.

        Raises:
            ImageError: the image cannot be read; the message names file, reason and remedy.
            PolicyMismatch: the policy was made for something else.
        """
        self._prepare(object)
        return self.judge([self._open(source)])[0]

    def inspect_many(
        self,
        sources: Source | Iterable[Source],
        object: str | None = None,
        *,
        batch_size: int = 8,
    ) -> Iterator[Inspection | Failure]:
        """Inspect files, folders or arrays one after the other; what cannot be read is a Failure.

        Raises:
            FileNotFoundError: a named file or folder is not there.
            PolicyMismatch: the policy was made for something else.
        """
        self._prepare(object)
        self.active_policy()
        self.scorer.batch_size = batch_size
        for batch in _batches(_expand(sources), batch_size):
            opened = [self.open_or_failure(source) for source in batch]
            pictures = [item for item in opened if isinstance(item, Picture)]
            judged = iter(self.judge_or_failure(pictures))
            for item in opened:
                yield next(judged) if isinstance(item, Picture) else item

    def _open(self, source: Source) -> Picture:
        if isinstance(source, Picture):
            return source
        return open_image(source, bit_depth=self.bit_depth)

    def open_or_failure(self, source: Source) -> Picture | Failure:
        """Open a picture; what cannot be read comes back as a Failure, not as an exception."""
        try:
            return self._open(source)
        except ImageError as error:
            return error.failure

    def _open_or_tell(
        self, source: Source, on_failure: Callable[[Failure], None] | None
    ) -> Picture | Failure:
        if on_failure is None:
            return self._open(source)
        opened = self.open_or_failure(source)
        if isinstance(opened, Failure):
            on_failure(opened)
        return opened

    def judge_or_failure(self, pictures: Sequence[Picture]) -> list[Inspection | Failure]:
        """``judge``, where a picture that breaks the batch costs itself alone."""
        if not pictures:
            return []
        try:
            return list(self.judge(pictures))
        except (ImageError, RuntimeError, MemoryError) as error:
            if len(pictures) > 1:
                return [result for p in pictures for result in self.judge_or_failure([p])]
            if isinstance(error, ImageError):
                return [error.failure]
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            remedy = "Free memory, use a smaller --batch-size, or shrink the picture"
            return [Failure(pictures[0].path, f"could not be scored ({reason})", remedy)]

    def judge(self, pictures: Sequence[Picture]) -> list[Inspection]:
        """Score decoded pictures and judge each by the active policy."""
        policy = self.active_policy()
        areas = [self._area(picture) for picture in pictures]
        scored = self.scorer.score(pictures, areas)
        return [
            self._judge_one(picture, one, area, policy)
            for picture, one, area in zip(pictures, scored, areas, strict=True)
        ]

    def _score(self, pictures: Sequence[Picture]) -> list[Scored]:
        return self.scorer.score(pictures, [self._area(p) for p in pictures])

    def _judge_one(
        self, picture: Picture, scored: Scored, area: np.ndarray | None, policy: Policy
    ) -> Inspection:
        height, width, score = picture.height, picture.width, scored.score
        if not np.isfinite(score):
            raise RuntimeError(f"the score is {score}")
        if not np.isfinite(scored.map).all():
            raise RuntimeError("the anomaly map is not finite")
        regions = find_regions(
            scored.map,
            policy.region_limit,
            type_map=scored.type_map,
            kinds=self.detector.kinds,
            inspected=area,
            p_value=policy.region_p_value,
        )
        verdict = policy.verdict(score)
        return Inspection(
            image=picture.path,
            object=self.object,
            width=width,
            height=height,
            verdict=verdict,
            calibrated=policy.calibrated,
            score=score,
            p_value=policy.p_value(score),
            regions=regions,
            explanation=explain(verdict, score, policy, regions, (height, width)),
            notes=(*picture.notes, *_seen_nothing(picture, area)),
            map=scored.map,
        )

    def facts(self) -> dict[str, Any]:
        """Facts of the detector and the references, as plain data for manifests."""
        return {**self._facts(), "fingerprint": self.fingerprint()}

    def _facts(self) -> dict[str, Any]:
        return {
            **self.detector.facts(),
            "viewing": dataclasses.asdict(self.scorer.viewing),
            "areas": [self._areas.get(name, (None, None))[1] for name in ("roi", "ignore")],
            "bit_depth": self.bit_depth,
            "references": sorted(self._digests),
        }


_NO_MAP = np.empty((0, 0), np.float32)


# ---------------------------------------------------------------------------------------------
# Sources


def _expand(sources: Source | Iterable[Source]) -> Iterable[Source]:
    """Folders to their images; anything else stays as it is.

    What is no sequence (a generator, a camera) is read as it is needed, and may never end.
    """
    if isinstance(sources, (str, Path, bytes, Image.Image, np.ndarray, Picture)):
        sources = [sources]
    expanded = chain.from_iterable(map(_images_of, sources))
    if not isinstance(sources, Sequence):
        return expanded
    found = list(expanded)  # a wrong path is an error before anything is inspected
    if not found:
        raise ValueError("no image was given")
    return found


def _seen_nothing(picture: Picture, area: np.ndarray | None) -> list[str]:
    """A note where the picture is a single colour, as of a covered or unplugged camera."""
    pixels = picture.pixels if area is None else picture.pixels[area]
    colours = pixels.reshape(-1, pixels.shape[-1])
    # most pictures tell within the first pixels
    if not (colours[:256] == colours[0]).all() or not (colours == colours[0]).all():
        return []
    what = "picture" if area is None else "inspected area"
    return [f"the {what} is a single colour: nothing can be seen in it"]


def _uncounted(copies: int, failures: Sequence[Failure]) -> list[str]:
    """Notes on pictures that a calibration was given and does not count."""
    notes = []
    if copies:
        notes.append(f"Copies of pictures given before, not counted: {copies}.")
    if failures:
        notes.append(f"Files that could not be read, not counted: {len(failures)}.")
    return notes


def _images_of(source: Source) -> Sequence[Source]:
    return find_images([source]) if isinstance(source, (str, Path)) else [source]


def _batches(sources: Iterable[Source], size: int) -> Iterator[list[Source]]:
    if size < 1:
        raise ValueError(f"the batch size must be at least 1, got {size}")
    stream = iter(sources)
    while batch := list(islice(stream, size)):
        yield batch


def _digest(picture: Picture) -> str:
    digest = hashlib.sha256(str((picture.pixels.shape, picture.pixels.dtype)).encode())
    digest.update(np.ascontiguousarray(picture.pixels).tobytes())
    return digest.hexdigest()[:16]
