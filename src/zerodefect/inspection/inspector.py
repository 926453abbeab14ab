"""What a user holds in hand: a detector with a product's name, references, a policy and regions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from zerodefect.detector.contract import Detector
from zerodefect.detector.knowledge import Knowledge
from zerodefect.images import ImageError, Picture
from zerodefect.inspection.allowances import Allowances, allowed_in_words
from zerodefect.inspection.conformal import CalibrationError, check_provable
from zerodefect.inspection.counting import count_kinds
from zerodefect.inspection.explain import explained
from zerodefect.inspection.frames import Frame, why_unjudged
from zerodefect.inspection.inspected import Inspection
from zerodefect.inspection.kind_examples import name_regions
from zerodefect.inspection.part_pictures import agreed, check_form, grouped, whole_parts
from zerodefect.inspection.part_verdict import Outcome, PartInspection, judge_part
from zerodefect.inspection.policy import Policy
from zerodefect.inspection.product_pictures import Keeping
from zerodefect.inspection.product_sections import Asked
from zerodefect.inspection.regions import USUAL_MINIMUM, find_regions
from zerodefect.inspection.rules.ruled import Going, OnGood, Ruled
from zerodefect.inspection.shown import Shown
from zerodefect.inspection.sources import GoodPictures, Source, expand, mirrored, one_of
from zerodefect.scoring.joining import Scored
from zerodefect.scoring.scorer import DEFAULT_BATCH
from zerodefect.scoring.stream import Seen, scored_stream
from zerodefect.types import Failure, Verdict

_Rates = dict[str, Any]  # those that were asked for, and frames, as ``calibrate`` takes them

_KEPT_POLICIES = 64  # made on the spot, for products that were named with a call


class Inspector(Ruled):
    """Inspects images with one detector.

    Args:
        detector: gives raw scores and maps; or what builds it at first use.
        policy: the user's calibration, or None; an attribute, too.
        asked: how the detector was asked for, as plain data, so that a product file can say it.
        taught: ``vocabulary``, ``viewing``, ``bit_depth``, ``roi``, ``ignore`` of ``Teachable``.
    """

    def __init__(
        self,
        detector: Detector | Callable[[], Detector],
        *,
        policy: Policy | None = None,
        asked: Mapping[str, Any] | None = None,
        **taught: Any,
    ) -> None:
        super().__init__(detector, **taught)
        self.policy, self.asked = policy, asked
        self.among_themselves = False  # see ``self_comparison``

    # --- calibration ---------------------------------------------------------------------------

    def calibrate(
        self,
        good: Source | Iterable[Source] | Mapping[str, Iterable[Source]],
        *,
        object: str | None = None,
        part_by: str | None = None,
        false_alarms: float | None = None,
        review_rate: float | None = None,
        confidence: float | None = None,
        leave_one_out: bool = False,
        allow: Iterable[str] = (),
        batch_size: int = DEFAULT_BATCH,
        on_scored: Callable[[int], None] = lambda count: None,
        on_failure: Callable[[Failure], None] | None = None,
    ) -> Policy:
        """Learn the limits from good images only, use them from now on, and return them.

        A picture that is given several times counts once: copies prove nothing. Where parts have
        several pictures, rates are those of parts, and a part counts if all its pictures do.

        Args:
            good: files, folders or arrays of good parts; pictures by the names of their parts.
            part_by: pattern that names the part of a file, see ``part_names``.
            object: product name, from now on.
            false_alarms: largest share of good parts called defective, mean over calibrations.
            review_rate: likewise, that may be called unsure or worse.
            confidence: such as 0.95, with which ``false_alarms`` is to hold for these very limits.
            leave_one_out: the good images are the references, too: each is scored against the
                others, and afterwards all are remembered. Not of parts.
            allow: rules on regions that are no defects: ``stain:area<50``; see ``allowances``.
            batch_size: images that go through the network at once.
            on_scored: called with the number of images just scored.
            on_failure: called with every image that cannot be used; the rest count.

        Raises:
            CalibrationError: too few images for the asked rate; it says how many it takes.
            FileNotFoundError, ImageError: something cannot be used, and there is no ``on_failure``.
            UnsupportedError: the method's scores depend on the other images of a set.
        """
        self._check_calibrates(object, leave_one_out)
        asked: _Rates = {"false_alarms": false_alarms, "review_rate": review_rate}
        asked["confidence"] = confidence
        rates = self.shared_rates(asked).of_score(asked)
        good_ones, keeping = GoodPictures(self.open_good, on_failure), Keeping()
        going = Going(good_ones, batch_size, on_scored, keeping)
        allowances = Allowances.of(allow)
        if allowances is not None:  # before the long work
            allowances.check(self.kinds())
        if part_by is not None or isinstance(good, Mapping):
            check_form(leave_one_out)
            self.check_learns_rules(part_by=True)
            made = self._calibrated_parts(good, part_by, rates, going)
        else:
            made = self._calibrated_images(good, leave_one_out, rates, going)
        if allowances is not None:
            allowances.check(self.kinds(), made.region_limit is not None)
        made = made.model_copy(update={"allowances": allowances})
        made = self.with_rules(made, self._ready(None), asked, going.on_good)
        self.calibrated(made, Asked(leave_one_out=leave_one_out, **asked), keeping)
        return made

    def _check_calibrates(self, object: str | None, leave_one_out: bool) -> None:
        self.check_judges_alone()
        if object is not None:
            self.describe(object)
        info = self.detector.info
        if "references" in info.needs and not (leave_one_out or self.shots):
            raise CalibrationError(
                f"{info.title} compares with good parts, and knows none. Give it some that are not "
                "among those it learns limits from (--reference), or use all for both "
                "(--leave-one-out)"
            )

    def _prepare(self, images: Sequence[Source], n: int, rates: _Rates, unit: str) -> None:
        """Settle the bit depth, and refuse a rate that n images or parts cannot prove."""
        self.infer_bit_depth(images)
        if rates["false_alarms"] is not None:
            asked = rates["false_alarms"], n, "false-alarm rate", rates["confidence"], unit
            check_provable(*asked)

    def _calibrated_images(
        self,
        good: Source | Iterable[Source],
        leave_one_out: bool,
        rates: _Rates,
        going: Going,
    ) -> Policy:
        images = expand(good, tolerant=going.tolerant)
        if isinstance(images, Sequence):
            self._prepare(images, len(images), rates, "image")
        if leave_one_out:
            made = self._calibrated_left_out(images, rates, going.good_ones)
            going.on_scored(self.shots)
            return made
        shown = self._ready(None)
        seen = [one for one in self._good_seen(shown, images, going) if one]
        rates = {**rates, "frames": [frame for _, frame in seen]}
        scored = [one for one, _ in seen]
        return self._policy_of(shown, scored, "split", rates, going.good_ones.notes())

    def _calibrated_parts(
        self, good: Any, part_by: str | None, rates: _Rates, going: Going
    ) -> Policy:
        """The same of parts: see ``grouped`` for what they are given as."""
        groups = grouped(good, part_by, tolerant=going.tolerant)
        names = [name for name, group in groups.items() for _ in group]
        images = [one for group in groups.values() for one in group]
        self._prepare(images, len(groups), rates, "part")
        shown = self._ready(None)
        scored, learned = whole_parts(part_by, names, self._good_seen(shown, images, going))
        notes = [*going.good_ones.notes(), *learned.pop("notes")]
        return self._policy_of(shown, scored, "split", {**rates, **learned}, notes)

    def _good_seen(
        self, shown: Shown, images: Iterable[Source], going: Going
    ) -> Iterator[tuple[Scored, Frame] | None]:
        """What each good picture shows; None for what does not count."""
        seen, viewing = partial(self._seen, shown), self.kept_viewing()
        for one in going.good_ones.once(images, seen, shown.digests, going.batch_size):
            going.on_scored(1)
            if one:
                scored, frame, picture, of_rules = one
                going.keeping.add(picture, frame, viewing)
                going.on_good.extend([of_rules] if of_rules else [])
            yield (scored, frame) if one else None

    def _seen(
        self, shown: Shown, pictures: Sequence[Picture]
    ) -> list[tuple[Scored, Frame, Picture, OnGood | None]]:
        frames = shown.frames(pictures, self.judges_points)
        seen = zip(pictures, self._scores(shown, pictures), frames, strict=True)
        return [
            (replace(one, features=None), frame, picture, self.on_good(picture, area, one))
            for picture, one, frame in seen
            for area in [shown.area(picture)]
        ]

    def _scores(self, shown: Shown, pictures: Sequence[Picture]) -> list[Scored]:
        """Scores of pictures, whose maps are not kept."""
        areas = [shown.area(picture) for picture in pictures]
        return [replace(one, map=None) for one in self.judging.score(pictures, areas, shown.known)]

    def _calibrated_left_out(
        self, images: Iterable[Source], rates: _Rates, good_ones: GoodPictures
    ) -> Policy:
        pictures = good_ones.pictures(images)
        if not pictures:
            raise CalibrationError("no good image can be read. Give at least one.")
        self.forget()
        self.remember(pictures)
        return self._left_out_policy(self._ready(None), rates, good_ones.notes())

    def active_policy(self, object: str | None = None) -> Policy:
        """Return the policy that verdicts follow.

        The user's own, if there is one. Else, with two or more references, one learned from them
        by leave-one-out. Else a provisional one, which every output names uncalibrated.

        Args:
            object: product name of one call, where it is not the one in use.

        Raises:
            PolicyMismatch: the user's policy was made for other weights, words, settings or
                references.
        """
        return self._policy_for(self._ready(object))

    def _policy_for(self, shown: Shown) -> Policy:
        identity = self._identity(shown)
        if self.policy is not None:
            self.policy.check(**identity, bit_depth=self.bit_depth)
            if self.policy.allowances is not None:
                kinds, has_maps = self._kinds_of(shown), self.policy.region_limit
                self.policy.allowances.check(kinds, has_maps is not None)
            return self.policy
        fingerprint = identity["fingerprint"]
        with self._lock:
            if fingerprint not in self._automatic:
                if len(shown.references) < len(shown.digests):
                    self._not_of_a_file("another setting")
                many = len(shown.references) >= 2  # a single image has no others
                made = self._left_out_policy(shown, {}) if many else self._provisional(shown)
                if len(self._automatic) >= _KEPT_POLICIES:
                    self._automatic.clear()
                self._automatic[fingerprint] = made
            return self._automatic[fingerprint]

    def _left_out_policy(self, shown: Shown, rates: _Rates, notes: Sequence[str] = ()) -> Policy:
        references, known = shown.references, shown.known
        areas = [shown.area(picture) for picture in references]
        if 2 <= known.shots == len(references) and self.detector.leaves_out(known):
            numbers = range(len(references))
            scored = self.scorer.score(references, areas, known, left_out=numbers)
        else:
            alone = self._learned(shown.without_references()).known
            scored = self.scorer.score_left_out(references, areas, alone)
        rates = {**rates, "frames": shown.frames(references, self.judges_points)}
        return self._policy_of(shown, scored, "leave-one-out", rates, notes)

    def _provisional(self, shown: Shown) -> Policy:
        known = shown.known
        neutral, span = self.detector.neutral_score(known), self.detector.map_range(known)
        if shown.references and "set" not in self.detector.info.needs:
            # One reference cannot be left out; its mirror images show at least how far a part
            # like it lies from itself.
            (picture,) = shown.references
            seen = self._scores(shown, mirrored(picture))
            neutral = max(one.score for one in seen)
            limit = max((one.highest for one in seen if one.highest is not None), default=None)
            low = span[0] if span else 0.0
            if limit is not None and not np.isfinite(low):  # a scale without an end
                low = min(0.0, 2 * limit)
            span = None if limit is None else (low, max(2 * limit - low, low + 1e-3))
        elif span is None or not np.isfinite(span).all():
            span = limit = None  # a scale without an end: nothing says where a region begins
        else:
            limit = sum(span) / 2 if neutral is None else neutral
        told = {"remedy": self.remedy, **self._whose(shown)}
        return Policy.provisional(neutral=neutral, map_range=span, region_limit=limit, **told)

    # --- inspection -----------------------------------------------------------------------------

    def inspect(self, source: Source | Any, object: str | None = None) -> Inspection:
        """Inspect one image.

        Args:
            source: anything that ``open_image`` takes (path, encoded bytes, open file, PIL image,
                array, tensor), a Picture, or an item that holds one, see ``loader_items.loaded``.
            object: product name, for this call alone.

        Raises:
            ImageError: the image cannot be read or scored; the message names file, reason and
                remedy.
            PolicyMismatch: the policy was made for something else.
            TypeError: of no such type, or it cannot be told which of it is the picture.
        """
        result = next(self.stream([one_of(source)], object)).result
        if isinstance(result, Failure):
            raise ImageError(result.image, result.reason, result.remedy)
        return result

    def inspect_many(
        self,
        sources: Source | Iterable[Any],
        object: str | None = None,
        *,
        batch_size: int = DEFAULT_BATCH,
        keep_maps: bool = True,
    ) -> Iterator[Inspection | Failure]:
        """Inspect pictures one after the other; what cannot be read is a Failure.

        Args:
            sources: files, folders, arrays, batches, a data loader, see ``loader_items.loaded``.
            object: product name, for this call alone.
            batch_size: images that go through the network at once.
            keep_maps: whether results hold map and picture, 7 bytes a pixel, for ``overlay``.

        Raises:
            FileNotFoundError: a named file or folder is not there.
            PolicyMismatch: the policy was made for something else.
            TypeError: something is no picture, or it cannot be told which of it is.
        """
        seen = self.stream(expand(sources), object, batch_size=batch_size, keep_maps=keep_maps)
        return (one.result for one in seen)

    def inspect_parts(
        self,
        sources: Source | Iterable[Source] | Mapping[str, Iterable[Source]],
        object: str | None = None,
        *,
        part_by: str | None = None,
        batch_size: int = DEFAULT_BATCH,
        keep_maps: bool = True,
    ) -> Iterator[PartInspection]:
        """Inspect parts of several pictures one after the other.

        Args:
            sources: files and folders; or pictures by the names of their parts.
            object: product name, for this call alone.
            part_by: pattern that names the part of a file, see ``part_names``; None for the
                policy's.
            batch_size, keep_maps: as of ``inspect_many``.

        Raises:
            PolicyError: the policy was learned from single pictures or with another pattern, or a
                file has no part.
            FileNotFoundError, PolicyMismatch: as ``inspect_many`` does.
        """
        policy = self.active_policy(object)
        by = agreed(policy.parts, policy.calibrated, part_by)
        groups = grouped(sources, part_by if isinstance(sources, Mapping) else by)
        images = [one for group in groups.values() for one in group]
        found = self.stream(images, object, batch_size=batch_size, keep_maps=keep_maps)
        for name, group in groups.items():
            results = [next(found).result for _ in group]
            yield judge_part(name, list(map(Outcome.of, results)), policy, results)

    def stream(
        self,
        sources: Iterable[Any],
        object: str | None = None,
        *,
        batch_size: int = DEFAULT_BATCH,
        keep_maps: bool = True,
    ) -> Iterator[Seen[Any, Inspection]]:
        """``inspect_many`` with the pictures themselves, for whoever draws on them."""
        if isinstance(sources, Sequence):
            self.infer_bit_depth(sources)
        self.check_rules()
        shown = self._ready(object)
        policy = self._policy_for(shown)
        out = shown.number if self.among_themselves and self.leaves_out() else None
        found = scored_stream(
            self.judging, shown.known, sources, self._open, shown.area, batch_size, out
        )
        for seen in found:
            result = self._judged(seen, shown, policy)
            if isinstance(result, Inspection):
                result = replace(
                    result, **({"picture": seen.picture} if keep_maps else {"map": None})
                )
            yield Seen(seen.source, seen.picture, result)

    def judge(
        self,
        pictures: Sequence[Picture],
        known: Knowledge | None = None,
        left_out: Callable[[Picture], int] | None = None,
    ) -> list[Inspection | Failure]:
        """Inspect pictures by the limits in force, under another knowledge of the product.

        ``known`` is such as ``without_each`` gives it; ``left_out`` as of ``scored_stream``.
        """
        shown = self._ready(None)
        policy = self._policy_for(shown)
        shown = shown if known is None else replace(shown, knowledge=known)
        how = (self.judging, shown.known, pictures, self._open, shown.area)
        return [self._judged(s, shown, policy) for s in scored_stream(*how, left_out=left_out)]

    def _judged(
        self, seen: Seen[Any, Scored], shown: Shown, policy: Policy
    ) -> Inspection | Failure:
        picture, scored = seen.picture, seen.result
        if isinstance(scored, Failure):
            return scored
        assert picture is not None
        numbers = [np.array(scored.score), scored.map]
        if not all(np.isfinite(each).all() for each in numbers if each is not None):
            reason = "could not be scored (score or anomaly map is not finite)"
            return Failure(picture.path, reason, "Check the weights, and use float32")
        size, area = (picture.height, picture.width), shown.area(picture)
        limit, least = policy.region_limit, 1 if policy.allowances else USUAL_MINIMUM
        regions = find_regions(
            scored.map, limit, minimum_area=least, inspected=area, p_value=policy.region_p_value
        )
        regions = policy.marked(name_regions(self, regions, scored, picture, shown))
        counts = count_kinds(scored.map, regions, limit)
        drawn = self.refined(picture, regions, scored.map, area)
        unjudged = why_unjudged(picture, area, policy.frames)
        verdict: Verdict = policy.verdict(scored.score, regions) if not unjudged else "unsure"
        by_rule = unjudged is None and verdict != policy.verdict(scored.score)
        why = (verdict, scored.score, policy, drawn, size, unjudged, counts)
        found = Inspection(
            image=picture.path,
            object=shown.name,
            width=size[1],
            height=size[0],
            verdict=verdict,
            calibrated=policy.calibrated,
            score=scored.score,
            p_value=policy.p_value(scored.score),
            regions=drawn,
            explained=explained(*why, after=self.told_transductive()),
            answer=scored.answer,
            notes=(*picture.notes, *filter(None, (unjudged, shown.why_whole(picture)))),
            map=scored.map,
            colour_range=policy.colour_range,
            reason=unjudged,
            allowed=allowed_in_words(regions) if by_rule else None,
            counts=counts,
            transductive=self.transductive,
            area=shown.found(picture),
        )
        return self.ruled(found, scored, picture, area)
