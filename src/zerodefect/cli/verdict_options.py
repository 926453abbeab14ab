"""Options about what decides of a score."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zerodefect.cli.options import Options, ProductOptions, RuleOptions, option
from zerodefect.cli.picture_options import PictureOptions

if TYPE_CHECKING:
    from zerodefect.inspection.policy import Policy


@dataclass(frozen=True)
class VerdictOptions(Options, panel="Product"):
    """What decides of a score."""

    policy: Path | None = option(None, "Calibration from 'calibrate'.", "--policy", "-p")
    threshold: str | None = option(
        None,
        "Defect limit for this run: a score (0.62), rate:0.02, q:0.99, x1.05 or 105%.",
        metavar="LIMIT",
    )

    def opened(
        self, product: ProductOptions, pictures: PictureOptions
    ) -> tuple[Policy | None, ProductOptions, PictureOptions]:
        """The policy, if one is named, and the options with its name and bit depth.

        Raises:
            ValueError: a product file is named, too.
            PolicyError: the file cannot be used.
        """
        from zerodefect.inspection.policy import Policy

        if self.policy is None:
            return None, product, pictures
        if product.product:
            told = "the product file has its own limits (--threshold changes one)"
            raise ValueError(f"--policy: {told}")
        given = Policy.load(self.policy)
        return given, *_as_calibrated(given, product, pictures)

    def decided(self, policy: Policy, rules: RuleOptions) -> Policy:
        """A policy with the rules and the limit of the user's own.

        Raises:
            PolicyError: a rule or limit that is not understood.
        """
        policy = policy.allowing(rules.rules) if rules.rules else policy
        return policy if self.threshold is None else policy.with_threshold(self.threshold)


def _as_calibrated(
    policy: Policy, product: ProductOptions, pictures: PictureOptions
) -> tuple[ProductOptions, PictureOptions]:
    """The options, with name and bit depth of the policy where none are given."""
    if product.object is None:
        product = dataclasses.replace(product, object=policy.object)
    if pictures.bit_depth is None:
        pictures = dataclasses.replace(pictures, bit_depth=policy.bit_depth)
    return product, pictures
