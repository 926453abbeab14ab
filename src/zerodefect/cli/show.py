"""``zerodefect show``: the card of a product file."""

from __future__ import annotations

import json

from zerodefect.cli.options import AsJson, ProductPath
from zerodefect.cli.telling import tell


def show(file: ProductPath, *, as_json: AsJson = False) -> None:
    """Show what a product file knows, proves and needs.

    What it was taught, from how many pictures, which rates are proven, which damage it would find,
    and the licences of the weights. No network is loaded.
    """
    from zerodefect.inspection.product_file import opened_product

    product = opened_product(file)
    if as_json:
        told = product.told.model_dump(mode="json")
        limits = product.policy.model_dump(mode="json")
        tell(json.dumps({**told, "policy": limits, "power": product.power}))
        return
    tell(product.card().rstrip("\n"), lines=True)
