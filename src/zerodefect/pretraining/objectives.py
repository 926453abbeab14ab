"""What the embedded model learns from a batch of procedural pictures.

Every decision between normal and anomalous is trained in the form in which WinCLIP (Jeong et al.,
CVPR 2023) asks for it: a softmax over the cosines of a token with the mean normal and the mean
anomalous text, divided by 0.07. So the probability that comes out is the one that was trained.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from zerodefect.backbones.clip import CLIP, tokenize
from zerodefect.layers.windows import window_patches
from zerodefect.procedural import DEFECT_KINDS, KIND_STATES, NOUNS, ProceduralBatch
from zerodefect.procedural.captions import MORE_ANOMALOUS_STATES, MORE_NORMAL_STATES, TEMPLATES
from zerodefect.prompts.ensemble import ANOMALOUS_STATES, NORMAL_STATES

TEMPERATURE = 0.07
WINDOW_SIDES = (2, 3)  # patches, as WinCLIP's small and middle windows

# Damage is written off as invisible below this share of a patch or window, and the place is left
# out of training; a line one pixel wide across an 8-pixel patch covers 0.125 of it.
_LEAST_PATCH = 4 / 64
_LEAST_WINDOW = 5 / 256
# A window mostly inside damage shows little else, and nothing to tell it by: the inside of a stain
# is a surface like others. Such windows count less, or they drown those where damage can be seen.
# A patch sees the whole picture, so its inside counts in full.
_INSIDE = 0.5
_INSIDE_WEIGHT = 0.2
# A large defect has a hundred times the patches of a small one and must not weigh as much more.
_SIZE_POWER = -0.5

# Reference distances (1 - cosine) in [0, 2]: normal patches are to lie below the middle, damaged
# ones above it, with this softness.
_FAR = 0.25
_FAR_SOFT = 0.06


Prompts = list[tuple[list[str], ...]]
"""Normal, anomalous and per-kind sentences of each product name."""


@dataclass(frozen=True)
class StateTexts:
    """Texts of one step, for several product names at once."""

    normal: Tensor  # (G, D) mean embedding of the normal states of each product name
    anomalous: Tensor  # (G, D) mean embedding of the anomalous states
    kinds: Tensor  # (G, K, D) embedding of each defect kind
    captions: Tensor  # (B, D) embeddings of the pictures' captions
    every: Tensor  # (T, D) embeddings of all state sentences
    state: Tensor  # (T,) what each says: 0 normal, 1 anomalous, k + 2 kind k


def _invented_name(draw: random.Random) -> str:
    """A word that nobody uses, so that names never met in training say nothing of the state."""
    syllables = [
        draw.choice("bcdfghjklmnprstvwz") + draw.choice("aeiou") + draw.choice(["", "n", "r", "s"])
        for _ in range(draw.randint(1, 4))
    ]
    return "".join(syllables) + draw.choice(["", "", "", f" {draw.choice(NOUNS)}"])


def _filled(draw: random.Random, states: list[str], name: str) -> list[str]:
    return [draw.choice(TEMPLATES).replace("{}", state.replace("{}", name)) for state in states]


def draw_prompts(draw: random.Random, groups: int) -> Prompts:
    """Sentences about ``groups`` product names."""
    prompts = []
    for _ in range(groups):
        name = _invented_name(draw) if draw.random() < 0.3 else draw.choice(NOUNS)
        normal = [*NORMAL_STATES, *draw.sample(MORE_NORMAL_STATES, 1)]
        anomalous = [*ANOMALOUS_STATES, *draw.sample(MORE_ANOMALOUS_STATES, 1)]
        kinds = [draw.choice(KIND_STATES[kind]) for kind in DEFECT_KINDS]
        prompts.append(tuple(_filled(draw, side, name) for side in (normal, anomalous, kinds)))
    return prompts


def embed_states(clip: CLIP, prompts: Prompts, captions: list[str]) -> StateTexts:
    """Run all texts of a step through the text tower at once.

    Means are taken over embeddings that are not normalised first, as WinCLIP takes them.
    """
    texts = [text for group in prompts for part in group for text in part] + captions
    unique = list(dict.fromkeys(texts))
    place = {text: row for row, text in enumerate(unique)}
    device = clip.logit_scale.device
    rows = torch.tensor([place[text] for text in texts], device=device)
    ids = tokenize(unique, clip.config.text.context_length).to(device)
    embedded = clip.text(ids)[rows].float()
    sizes = [len(part) for group in prompts for part in group]
    parts = embedded[: sum(sizes)].split(sizes)
    says = [
        torch.cat([torch.zeros(len(n)), torch.ones(len(a)), torch.arange(len(k)) + 2.0])
        for n, a, k in prompts
    ]
    return StateTexts(
        normal=torch.stack([part.mean(0) for part in parts[0::3]]),
        anomalous=torch.stack([part.mean(0) for part in parts[1::3]]),
        kinds=torch.stack(parts[2::3]),
        captions=embedded[sum(sizes) :],
        every=embedded[: sum(sizes)],
        state=torch.cat(says).long().to(device),
    )


def coverage(batch: ProceduralBatch, patch: int) -> tuple[Tensor, Tensor]:
    """Per patch ``(B, N)``: covered share in [0, 1], and the kind that covers most, or -1."""
    kinds = range(1, len(DEFECT_KINDS) + 1)
    shares = torch.stack([(batch.kind_map == kind).float() for kind in kinds], 1)
    shares = F.avg_pool2d(shares, patch).flatten(2)
    most, kind = shares.max(1)
    return shares.sum(1), torch.where(most > 0, kind, -1)


@dataclass(frozen=True)
class Places:
    """Tokens to judge: which product name they go with, and what is true of them."""

    group: Tensor  # (M,) product name of the token
    kind: Tensor  # (M,) position in ``DEFECT_KINDS``, -1 for undamaged
    weight: Tensor  # (M,) how much the token counts; 0 leaves it out


def _judged(share: Tensor, kind: Tensor, group: Tensor, weight: Tensor, least: float) -> Places:
    """Places from covered shares: clean ones, damaged ones, and in between left out."""
    unclear = (share > 0) & (share < least)
    kind = torch.where(share >= least, kind, -1)
    weight = torch.where(unclear, 0.0, weight)
    return Places(group[:, None].expand_as(kind).flatten(), kind.flatten(), weight.flatten())


def judged_patches(share: Tensor, kind: Tensor, group: Tensor) -> Places:
    """Patches ``(B, N)`` from covered shares, as windows are; large damage counts per patch less.

    The weight of a damaged patch falls with the root of the damaged patches of its picture.
    """
    damaged = share >= _LEAST_PATCH
    weight = torch.where(damaged, _size_weight(damaged), 1.0)
    return _judged(share, kind, group, weight, _LEAST_PATCH)


def _size_weight(damaged: Tensor) -> Tensor:
    """``(..., 1)`` weight of a damaged patch, from ``(..., N)`` bool of its picture."""
    return damaged.sum(-1, keepdim=True).clamp(min=1).float() ** _SIZE_POWER


def _balanced(*sides: tuple[Tensor, Tensor]) -> Tensor:
    """Mean of the means of losses with weights, over sides that have any: rare counts as much."""
    means = [(losses * weight).sum() / weight.sum() for losses, weight in sides if weight.sum() > 0]
    return torch.stack(means).mean()


def state_losses(z: Tensor, texts: StateTexts, places: Places) -> tuple[Tensor, Tensor]:
    """Losses of embeddings ``(M, D)``: normal against anomalous; normal against each kind."""
    z = F.normalize(z.float(), dim=-1)
    pair = torch.stack([texts.normal, texts.anomalous], 1)
    every = torch.cat([texts.normal[:, None], texts.kinds], 1)
    found = []
    for words, target in ((pair, (places.kind >= 0).long()), (every, places.kind + 1)):
        # Against the words of all groups, and then the token's own: no copy of words per token.
        cosines = (z @ F.normalize(words, dim=-1).flatten(0, 1).T).unflatten(1, words.shape[:2])
        own = cosines[torch.arange(len(z), device=z.device), places.group]
        losses = F.cross_entropy(own / TEMPERATURE, target, reduction="none")
        damaged, clean = places.weight * (places.kind >= 0), places.weight * (places.kind < 0)
        found.append(_balanced((losses, damaged), (losses, clean)))
    return found[0], found[1]


def peak_loss(z: Tensor, texts: StateTexts, group: Tensor, share: Tensor) -> Tensor:
    """The strongest clean places of a picture stay normal, the strongest damaged one does not.

    Verdicts and thresholds live from the highest values of a map, which the mean over patches
    hardly feels. So this is the logistic loss of the mean of the highest 1/64 of the clean patches
    of each picture, and of the highest damaged patch of each damaged one, half each.

    Args:
        z: ``(B, N, D)`` patch embeddings.
        texts: of the step.
        group: ``(B,)`` product name of each picture.
        share: ``(B, N)`` covered share of each patch.
    """
    z = F.normalize(z.float(), dim=-1)
    way = F.normalize(texts.anomalous, dim=-1) - F.normalize(texts.normal, dim=-1)
    logits = torch.einsum("bnd,bd->bn", z, way[group]) / TEMPERATURE
    clean, damaged = share == 0, share >= _LEAST_PATCH
    top = max(1, share.shape[1] // 64)
    highest = logits.masked_fill(~clean, -1e4).topk(top, dim=1).values.mean(1)
    found = -logits.masked_fill(~damaged, -1e4).amax(1)[damaged.any(1)]
    known = [F.softplus(x).mean() for x in (highest[clean.sum(1) >= top], found) if len(x)]
    return torch.stack(known).mean() if known else logits.sum() * 0


def caption_loss(z: Tensor, captions: Tensor, kinds: Tensor) -> Tensor:
    """Contrast of pictures ``(B, D)`` and captions ``(B, D)``, both ways (CLIP, section 2.3).

    Captions of one state fit every picture of that state, so all of them are right answers.
    """
    same = (kinds[:, None] == kinds[None]).float()
    right = same / same.sum(1, keepdim=True)
    logits = F.normalize(z.float(), dim=-1) @ F.normalize(captions, dim=-1).T / TEMPERATURE
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


def text_loss(texts: StateTexts) -> Tensor:
    """Sentences that say the same are alike whatever the product, others are not.

    Supervised contrast (Khosla et al., NeurIPS 2020), once over normal against anomalous of any
    kind and once over all states. Without it the state texts begin so close together that the
    image tower learns nothing from them for a long time.
    """
    z = F.normalize(texts.every, dim=-1)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    log_share = (z @ z.T / TEMPERATURE).masked_fill(itself, -1e4).log_softmax(1)
    found = []
    for state in (texts.state.clamp(max=1), texts.state):
        same = ((state[:, None] == state[None]) & ~itself).float()
        count = same.sum(1)
        found.append(-((same * log_share).sum(1) / count.clamp(min=1))[count > 0].mean())
    return torch.stack(found).mean()


def reference_loss(features: Tensor, share: Tensor) -> Tensor:
    """Patches of one product: normal ones have a near normal neighbour, damaged ones have none.

    Pictures ``2 i`` and ``2 i + 1`` show the same product. Each is compared with the clean patches
    of the other, exactly as a memory bank of one reference does it: binary cross-entropy of the
    distance to the nearest one. ``features`` are ``(B, N, W)``, ``share (B, N)``, B even.
    """
    z = F.normalize(features.float(), dim=-1).unflatten(0, (-1, 2))
    share = share.unflatten(0, (-1, 2))
    cosine = z @ z.flip(1).transpose(-1, -2)  # (B/2, 2, N, N)
    clean = share.flip(1)[:, :, None] == 0
    nearest = 1 - cosine.masked_fill(~clean, -1.0).amax(-1)
    known = clean.any(-1).expand_as(nearest)
    damaged, sound = (share >= _LEAST_PATCH) & known, (share == 0) & known
    logits = (nearest - _FAR) / _FAR_SOFT
    return _balanced(
        (F.softplus(-logits), damaged * _size_weight(damaged)),
        (F.softplus(logits), sound.float()),
    )


def choose_windows(share: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """``(B, count)`` window numbers: half of them damaged where there are any, half clean.

    ``share (B, n)`` is the covered share of each window; ``count`` is even, at most n.
    """
    half = count // 2
    chance = torch.rand(2, *share.shape, generator=generator).to(share.device)
    damaged = (chance[0] + (share > 0)).topk(half, dim=1).indices
    clean = (chance[1] + (share == 0)).topk(count - half, dim=1).indices
    return torch.cat([damaged, clean], 1)


def window_embeddings(clip: CLIP, tokens: Tensor, chosen: Tensor, patches: Tensor) -> Tensor:
    """Class-token embeddings of windows, run through the tower on their own as WinCLIP does.

    Args:
        clip: the model.
        tokens: ``(B, 1 + N, W)`` from ``visual.embed``, with the positions of the whole grid.
        chosen: ``(B, M)`` window numbers.
        patches: ``(n, side^2)`` patches of each window.

    Returns:
        ``(B * M, D)``.
    """
    rows = F.pad(patches[chosen] + 1, (1, 0))  # row 0 is the class token
    gathered = tokens[torch.arange(len(tokens), device=rows.device)[:, None, None], rows]
    # The plain attention kernel is faster than the fused one for windows of 5 and 10 tokens.
    with sdpa_kernel(SDPBackend.MATH):
        states = clip.visual.encode(gathered.flatten(0, 1), class_only=True)
    return clip.visual.project(states.tokens[:, 0])


WEIGHTS = {
    "patch": 1.0, "patch_kind": 0.3, "peak": 0.2, "reference": 0.2, "window": 0.3,
    "window_kind": 0.1, "text": 0.5, "image": 0.5, "image_kind": 0.1, "caption": 0.15,
}  # fmt: skip
_WHOLE = ("image", "image_kind", "caption")


def total_loss(losses: dict[str, Tensor], progress: float) -> Tensor:
    """Weighted sum of the losses, some of ``WEIGHTS``; ``progress`` is the share that has passed.

    A picture can be judged as a whole once its places can. Until then its few whole-picture
    labels are mostly noise, so their weights grow from a tenth to all over the training.
    """
    grown = 0.1 + 0.9 * progress
    return torch.stack(
        [WEIGHTS[n] * (grown if n in _WHOLE else 1.0) * loss for n, loss in losses.items()]
    ).sum()


def text_losses(clip: CLIP, step_seed: int, groups: int) -> dict[str, Tensor]:
    """The text tower's own loss, without pictures; the prompts are those of ``training_losses``."""
    prompts = draw_prompts(random.Random(step_seed), groups)
    return {"text": text_loss(embed_states(clip, prompts, []))}


def training_losses(
    clip: CLIP, batch: ProceduralBatch, pixels: Tensor, step_seed: int, windows: int, groups: int
) -> dict[str, Tensor]:
    """The image tower's losses of one batch, under names of ``WEIGHTS``; texts stand still.

    All pictures are judged whole, with their patches; every fourth also through small windows, so
    that window-based methods work.

    Args:
        clip: the model.
        batch: pictures with truth, two of each product after another.
        pixels: ``(B, 3, S, S)`` the same pictures, normalised.
        step_seed: decides prompts and windows.
        windows: windows per judged picture and side.
        groups: product names per step; pictures take turns.
    """
    prompts = draw_prompts(random.Random(step_seed), groups)
    with torch.no_grad():
        texts = embed_states(clip, prompts, batch.captions)
    group = torch.arange(len(pixels), device=pixels.device) % groups
    share, kind = coverage(batch, clip.config.vision.patch_size)
    tokens = clip.visual.embed(pixels)
    encoded = clip.visual.encode(tokens).tokens
    out = clip.visual.project(encoded)

    losses = {"caption": caption_loss(out[:, 0], texts.captions, batch.kinds)}
    whole = Places(group, batch.kinds, torch.ones(len(out), device=out.device))
    losses["image"], losses["image_kind"] = state_losses(out[:, 0], texts, whole)
    places = judged_patches(share, kind, group)
    losses["patch"], losses["patch_kind"] = state_losses(out[:, 1:].flatten(0, 1), texts, places)
    losses["peak"] = peak_loss(out[:, 1:], texts, group, share)
    if len(pixels) % 2 == 0:
        features = clip.visual.project(encoded[:, 1:], projection=False)
        losses["reference"] = reference_loss(features, share)
    truth, grid = (share[::4], kind[::4], group[::4]), clip.visual.grid(pixels)
    draws = torch.Generator().manual_seed(step_seed)
    embedded, places = judged_windows(clip, tokens[::4], grid, truth, windows, draws)
    losses["window"], losses["window_kind"] = state_losses(embedded, texts, places)
    return losses


def judged_windows(
    clip: CLIP,
    tokens: Tensor,
    grid: tuple[int, int],
    truth: tuple[Tensor, Tensor, Tensor],
    windows: int,
    generator: torch.Generator,
) -> tuple[Tensor, Places]:
    """Embeddings of random windows; ``truth`` is share, kind ``(B, N)`` and group ``(B,)``."""
    share, kind, group = truth
    embedded, judged = [], []
    for side in WINDOW_SIDES:
        patches = window_patches(grid, side).to(share.device)
        window_share = share[:, patches].mean(-1)
        fullest = share[:, patches].argmax(-1, keepdim=True)
        window_kind = kind[:, patches].gather(-1, fullest)[..., 0]
        chosen = choose_windows(window_share, windows, generator)
        embedded.append(window_embeddings(clip, tokens, chosen, patches))
        window_share, window_kind = window_share.gather(1, chosen), window_kind.gather(1, chosen)
        weight = torch.where(window_share > _INSIDE, _INSIDE_WEIGHT, 1.0)
        least = _LEAST_WINDOW * (2 / side) ** 2
        judged.append(_judged(window_share, window_kind, group, weight, least))
    parts = zip(*(vars(places).values() for places in judged), strict=True)
    return torch.cat(embedded), Places(*map(torch.cat, parts))
