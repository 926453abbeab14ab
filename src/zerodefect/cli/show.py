"""``zerodefect show``: the card of a product file."""

from __future__ import annotations

import json
from dataclasses import asdict

from zerodefect.cli.options import AsJson, ProductPath
from zerodefect.cli.telling import tell


def show(file: ProductPath, *, as_json: AsJson = False) -> None:
    """Show what a product file knows, proves and needs.

    What it was taught, from how many pictures, which rates are proven, which damage it would find,
    and the licences of the weights. No network is loaded.
    """
    from zerodefect.backbones.licences import licence_of
    from zerodefect.inspection.product_file import opened_product

    product = opened_product(file)
    if as_json:
        told = product.told.model_dump(mode="json")
        told |= {"policy": product.policy.model_dump(mode="json"), "power": product.power}
        networks = product.told.detector.networks.values()
        told["licences"] = [asdict(licence_of(one.model_dump())) for one in networks]
        tell(json.dumps(told))
        return
    tell(product.card().rstrip("\n"), lines=True)
