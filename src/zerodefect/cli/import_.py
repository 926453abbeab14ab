"""``zerodefect import``: take the authors' checkpoint over."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zerodefect.cli.options import NetworkOptions, TrainableMethod, output_option
from zerodefect.cli.telling import tell
from zerodefect.types import told_size


def import_(
    method: TrainableMethod,
    file: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE",
            help="The authors' file (.pth, .pt, .safetensors); some methods have two.",
        ),
    ],
    *,
    network: NetworkOptions,
    output: Path | None = output_option(None, "Default: METHOD.safetensors.", metavar="FILE"),
) -> None:
    """Take the authors' checkpoint over.

    It is checked key by key and written as ours; nothing in it is run. The weights that it was
    trained on must be at hand, since the result is bound to them.
    """
    from zerodefect.backbones.weight_files import file_hash
    from zerodefect.methods import get
    from zerodefect.training.official_import import import_checkpoint, read_together

    target = output or Path(f"{method}.safetensors")
    if target.suffix != ".safetensors":
        raise ValueError(f"--output {target}: the name ends in .safetensors")
    read_together(file, get(method).official_classes)
    for each in file:
        tell(f"SHA-256 of {each.name}: {file_hash(each)}")
    made = import_checkpoint(method, file, target, **network.keywords())
    tell(f"checkpoint: {target} (SHA-256 {made.sha256[:12]}), {made.method} on")
    tell(f"            {made.backbone} at {told_size(made.image_size)}")
    tell(f"use:        zerodefect inspect PICTURES --checkpoint {target}")
