"""Grounders: phrases to boxes in a picture, with scores and the words that each box answers to.

Grounding DINO (Liu et al., ECCV 2024, arXiv 2303.05499), through transformers (extra ``sam``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zerodefect.backbones.grounding_names import under_own_names
from zerodefect.backbones.hub_models import (
    GROUNDING_DINO,
    SHAPE,
    filled_network,
    hub_facts,
    hub_network,
    transformers_package,
    weights_folder,
)
from zerodefect.backbones.weight_files import WeightsError, file_hash, listed, read_state
from zerodefect.images import Preprocess

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_KINDS = {"grounding-dino": "GroundingDinoForObjectDetection"}
_PUBLISHED = (".pth", ".pt")  # endings of the authors' files; transformers' have others
_UNUSED = ".swin.layernorm."  # behind the last stage, which nothing reads
_SHORT, _LONG = 800, 1333  # pixels of the sides that it was trained with


@dataclass(frozen=True)
class Queries:
    """What all queries of a grounder say of one caption in B pictures, nothing left out.

    Attributes:
        boxes: ``(B, Q, 4)`` float32: centre x and y, width, height; shares of the picture.
        probabilities: ``(B, Q, L)`` float32 in [0, 1]: of each token of the caption; L is at least
            the number of ``ids``.
        ids: of the caption's tokens, the special ones at its ends among them.
    """

    boxes: Tensor
    probabilities: Tensor
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Found:
    """Boxes that answer to a caption in one picture, in the order of the queries.

    Attributes:
        boxes: ``(n, 4)`` float32: centre x and y, width, height; shares of the picture.
        scores: ``(n,)`` float32 in [0, 1]: probability of the likeliest token.
        phrases: the tokens of the caption that each answers to, as text.
    """

    boxes: Tensor
    scores: Tensor
    phrases: tuple[str, ...]

    @property
    def areas(self) -> Tensor:
        """``(n,)``: share of the picture that each takes."""
        return self.boxes[:, 2] * self.boxes[:, 3]

    @property
    def corners(self) -> Tensor:
        """``(n, 4)``: left, top, right, bottom; shares of the picture."""
        return to_corners(self.boxes)

    def rows(self, keep: Tensor) -> Found:
        """Those where a ``(n,)`` bool is True."""
        phrases = tuple(p for p, kept in zip(self.phrases, keep.tolist(), strict=True) if kept)
        return Found(self.boxes[keep], self.scores[keep], phrases)


def to_corners(boxes: Tensor) -> Tensor:
    """Boxes ``(..., 4)`` of centre, width and height as left, top, right, bottom."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def caption_of(phrase: str) -> str:
    """A phrase as Grounding DINO reads it: in lower case, with a full stop."""
    text = phrase.lower().strip()
    return text if text.endswith(".") else f"{text}."


def grounding_size(height: int, width: int, short: int = _SHORT) -> tuple[int, int]:
    """Size that its authors show a picture at: aspect kept, the short side 800 pixels.

    The long side is at most 1333; it is cut down to whole pixels, as theirs is.
    """
    low, high = min(height, width), max(height, width)
    if short * high / low > _LONG:
        short = round(_LONG * low / high)
    long = int(short * high / low)
    return (short, long) if height <= width else (long, short)


class Grounder(nn.Module):
    """What methods ask of a grounder; a ``Backbone``.

    Further ones define ``tokens``, ``words`` and ``run``.

    Args:
        name: as the user would name it again.
        fingerprint: SHA-256 of the weights file, hexadecimal.
        side: of the square input where nothing else is said, in pixels.
    """

    activation: ClassVar[None] = None  # no file of learned values hangs on it
    stride = 32
    licence: str | None = None
    file: Path | None = None
    precision: str = "float32"

    def __init__(self, name: str, fingerprint: str, side: int = _SHORT, width: int = 256) -> None:
        super().__init__()
        self.name, self.fingerprint, self.width = name, fingerprint, width
        self.preprocess = Preprocess(
            (side, side), _MEAN, _STD, interpolation="bilinear", resize_on="pil"
        )

    def tokens(self, caption: str) -> tuple[int, ...]:
        """Ids of a caption's tokens, the special ones at its ends among them."""
        raise NotImplementedError

    def words(self, ids: Sequence[int]) -> str:
        """Tokens as text."""
        raise NotImplementedError

    def run(self, pixels: Tensor, ids: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Logits ``(B, Q, L)`` and boxes ``(B, Q, 4)`` of one caption."""
        raise NotImplementedError

    def queries(self, pixels: Tensor, phrase: str) -> Queries:
        """What all queries say of a phrase.

        Args:
            pixels: ``(B, 3, H, W)``, prepared as ``preprocess`` says, of any size.
            phrase: what to look for; several are separated by full stops.
        """
        ids = self.tokens(caption_of(phrase))
        logits, boxes = self.run(pixels, ids)
        return Queries(boxes.float(), logits.float().sigmoid(), ids)

    def found(
        self,
        queries: Queries,
        row: int,
        *,
        box_threshold: float,
        text_threshold: float,
        ends: bool = True,
    ) -> Found:
        """Boxes in one of the pictures whose likeliest token is likelier than a threshold.

        Args:
            queries: of a phrase.
            row: number of the picture.
            box_threshold: probability that the likeliest token of a box exceeds.
            text_threshold: probability that the tokens of its phrase exceed.
            ends: whether the special tokens at the caption's ends may be in a phrase.
        """
        probabilities = queries.probabilities[row]  # (Q, L)
        scores = probabilities.amax(dim=1)
        keep = scores > box_threshold
        phrases = tuple(
            self.phrase(queries.ids, p, text_threshold, ends) for p in probabilities[keep]
        )
        return Found(queries.boxes[row][keep], scores[keep], phrases)

    def phrase(
        self, ids: Sequence[int], probabilities: Tensor, threshold: float, ends: bool = True
    ) -> str:
        """Text of the tokens whose probability ``(L,)`` exceeds a threshold."""
        above = (probabilities[: len(ids)] > threshold).tolist()
        last = len(ids) - 1
        chosen = [
            one
            for place, (one, high) in enumerate(zip(ids, above, strict=True))
            if high and (ends or 0 < place < last)
        ]
        return self.words(chosen)


class GroundingDINO(Grounder):
    """Grounding DINO.

    Args:
        network: transformers' ``GroundingDinoForObjectDetection``, in float32.
        tokenizer: BERT's.
        facts: ``name``, ``fingerprint``, ``file``, ``licence``.
        dtype: that its products are computed in; places of boxes would be too coarse in less
            than float32, so that the weights stay in it.
    """

    def __init__(
        self,
        network: Any,
        tokenizer: Any,
        facts: dict[str, Any],
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(facts["name"], facts["fingerprint"], width=int(network.config.d_model))
        self.network: Any = network
        self.tokenizer = tokenizer
        self.file, self.licence = facts.get("file"), facts.get("licence")
        self.dtype, self.precision = dtype, str(dtype).removeprefix("torch.")

    def tokens(self, caption: str) -> tuple[int, ...]:
        """As BERT's tokeniser cuts it.

        Raises:
            ValueError: a caption that is too long.
        """
        ids = tuple(self.tokenizer(caption)["input_ids"])
        most = int(self.network.config.max_text_len)
        if len(ids) > most:
            raise ValueError(
                f"{caption[:40]!r}... has {len(ids)} tokens, {self.name} reads {most}. Ask for "
                "fewer phrases at once"
            )
        return ids

    def words(self, ids: Sequence[int]) -> str:
        """As BERT's tokeniser joins them."""
        return str(self.tokenizer.decode(list(ids)))

    def run(self, pixels: Tensor, ids: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """One pass for all pictures."""
        row = torch.tensor([ids], device=pixels.device).expand(len(pixels), -1)
        less = self.dtype != torch.float32
        with torch.autocast(pixels.device.type, self.dtype if less else None, enabled=less):
            told = self.network(
                pixel_values=pixels.float(),
                input_ids=row,
                attention_mask=torch.ones_like(row),
                token_type_ids=torch.zeros_like(row),
            )
        return told.logits, told.pred_boxes


def load_grounder(
    name: str | None = None,
    *,
    weights: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> GroundingDINO:
    """Load Grounding DINO, frozen and in eval mode; nothing is downloaded.

    Args:
        name: repository on the hub whose files are in its cache, or a local folder; None for
            ``IDEA-Research/grounding-dino-tiny``.
        weights: local folder for it, as ``save_pretrained`` writes it, with its tokeniser; or a
            ``.pth`` of the authors' or tuned from theirs, whose configuration and tokeniser are
            those of ``name``.
        device: where it goes.
        dtype: its precision.

    Raises:
        WeightsError: transformers is not installed, or weights or tokeniser that are absent,
            damaged, or of another kind.
    """
    package = transformers_package()
    given = [Path(each) for each in (weights, name) if each]
    published = next((file for file in given if file.suffix in _PUBLISHED), None)
    shape = name if name and Path(name).suffix not in _PUBLISHED else GROUNDING_DINO
    chosen = shape if published else weights or shape
    folder = weights_folder(chosen, SHAPE) if published else weights_folder(chosen)
    try:
        tokenizer = package.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{folder}: no tokeniser in it ({str(error).splitlines()[0]}). Copy vocab.txt, "
            "tokenizer.json and tokenizer_config.json from where the weights are from"
        ) from None
    if published:
        network, facts = _published_network(published, folder), _published_facts(published, chosen)
    else:
        network, facts = hub_network(folder, _KINDS, torch.float32), hub_facts(chosen, folder)
    return GroundingDINO(network.to(device), tokenizer, facts, dtype).eval()


def _published_network(file: Path, folder: Path) -> Any:
    """The network of a file of the authors', shaped as a folder says.

    Raises:
        WeightsError: a file that cannot be read, or does not fit; what is wrong is listed.
    """
    state, faults = under_own_names(read_state(file))
    network, misfits = filled_network(folder, _KINDS, {n: t.float() for n, t in state.items()})
    faults += [fault for fault in misfits if _UNUSED not in fault]
    if faults:
        raise WeightsError(
            f"{file}: not the values of a Grounding DINO as {folder} describes it: "
            f"{listed(faults)}. Give the authors' file, and with --backbone the network whose "
            "shape it has"
        )
    return network


def _published_facts(file: Path, shape: str | Path) -> dict[str, Any]:
    named = Path(shape).absolute() if Path(shape).exists() else shape
    digest = file_hash(file)
    return {"name": f"{named} ({file.name})", "fingerprint": digest, "file": file.absolute()}
