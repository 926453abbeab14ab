"""DRAEM and its kin against the numbers of the official codes (see the case's meta)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from cases import Case, find
from tiny_clip import draw, fill
from torch import Tensor

from zerodefect.detector.checkpoint_file import fill as fill_learned
from zerodefect.layers.structural_similarity import ssim_map
from zerodefect.methods.autoencoder import Autoencoder
from zerodefect.methods.draem import DRAEM
from zerodefect.methods.ganomaly import GANomaly
from zerodefect.procedural.perlin import blended, perlin_noise
from zerodefect.training.optimizers import optimizer_of
from zerodefect.types import TrainingBatch


class ReconstructionCase(Case):
    """A case whose networks are made of a seed, and whose tolerances are told by kind."""

    def value(self, name: str, shape: list[int]) -> Tensor:
        """A parameter or running statistic, by the meta's recipe."""
        seed = self.meta["seed"]
        if name.endswith("num_batches_tracked"):
            return torch.zeros((), dtype=torch.int64)
        if name.endswith("running_mean"):
            made = np.float32(0.1) * draw(seed, name, tuple(shape))
        elif name.endswith("running_var"):
            made = np.float32(1) + np.float32(0.1) * np.abs(draw(seed, name, tuple(shape)))
        else:
            made = fill(seed, name, tuple(shape))
            made = made * np.float32(np.sqrt(2)) if len(shape) == 4 else made
        return torch.from_numpy(np.array(made, dtype=np.float32))

    def pixels(self, name: str = "image") -> Tensor:
        """``(B, 3, H, W)`` in [0, 1], channels as the case's code took them."""
        return self.tensor(name).permute(0, 3, 1, 2) / 255

    def close(self, name: str, value: Tensor, kind: str = "eval outputs") -> None:
        """Compare with the stored array at the tolerance of its kind."""
        expected, atol = self.tensor(name), self.meta["tolerances"][kind]
        got = (
            value.detach().reshape(-1, *expected.shape[1:])[: len(expected)]
            if (expected.ndim)
            else value.detach()
        )
        torch.testing.assert_close(
            got.to(expected.dtype), expected, atol=atol, rtol=0, msg=lambda m: f"{name}: {m}"
        )

    def draem(self) -> DRAEM:
        """With the case's weights, put in as an official checkpoint."""
        width = self.meta["draem"]["base_width"]
        published = {
            name: self.value(f"{network}_subnetwork.{name}", shape)
            for network in ("reconstructive", "discriminative")
            for name, shape in self.meta["draem"][f"{network}_shapes"].items()
        }
        told = DRAEM.official_options(published)
        assert told == {"reconstructive_width": width, "discriminative_width": width}
        detector = DRAEM.build(**told).eval()
        fill_learned(detector, detector.official_state(published), "the case")
        return detector

    def ganomaly(self, flavour: str = "original") -> GANomaly:
        """With the case's weights, whose order is that of the layers here."""
        facts = self.meta["ganomaly"]
        detector = GANomaly.build(
            size=facts["size"],
            width=facts["n_features"],
            code=facts["latent"],
            padding=4,
            flavour=flavour,
            adversarial=facts["weights"]["adv"],
            contextual=facts["weights"]["con"],
            latent=facts["weights"]["enc"],
        )
        own, theirs = detector.state_dict(), facts["shapes"].items()
        values = dict(zip(own, (self.value(*each) for each in theirs), strict=True))
        detector.load_state_dict(values)
        return detector.eval()


@pytest.fixture(scope="module", params=find("reconstruction"))
def case(request) -> ReconstructionCase:
    return ReconstructionCase(Path(request.param))


def test_draem_sees_and_scores(case):
    detector, pixels = case.draem(), case.pixels()
    case.close("input", pixels)
    with torch.no_grad():
        r, logits = detector.repaired(pixels)
    case.close("out/draem/reconstruction", r)
    case.close("out/draem/logits", logits)
    # the published weights read the channels that OpenCV gives, which the case calls RGB
    got = detector(pixels.flip(1))
    case.close("out/draem/anomaly_map", got.map)
    case.close("out/draem/image_score", got.score)


def test_draem_learns(case):
    """In float64: the case's gradient moves by a hundredth where inputs move by 1e-7."""
    detector = case.draem().train().double()
    good, mask = case.pixels(), case.tensor("draem/mask")
    beta = torch.full((len(good),), case.meta["draem"]["beta"])
    damaged = blended(good, mask > 0, case.tensor("draem/source") / 255, beta)
    torch.testing.assert_close(
        damaged.double().sum((1, 2, 3)), case.tensor("out/draem/augmented_sum"), atol=1e-2, rtol=0
    )
    (stage,) = detector.stages()
    (learner,) = stage.learners
    optimizer = optimizer_of(learner, stage.recipe)
    terms = detector.losses(good.double(), damaged.double(), mask.double())
    for name, value in terms.items():
        case.close(f"out/draem/loss/{name}", value, "losses")
    total = torch.stack(list(terms.values())).sum()
    case.close("out/draem/loss/total", total, "losses")
    total.backward()
    norms = [
        torch.nn.utils.get_total_norm([p.grad for p in network.parameters()])
        for network in (detector.reconstructive, detector.discriminative)
    ]
    allowed = case.meta["tolerances"]["grad_norm (relative)"]
    expected = case.tensor("out/draem/grad_norm").float()
    torch.testing.assert_close(torch.stack(norms).float(), expected, rtol=allowed, atol=0)
    optimizer.step()
    kernel = detector.reconstructive.encoder.block1[0].weight
    # Adam's first step is the gradient's sign; that of gradients near zero is rounding
    sure = kernel.grad.abs() > 0.02 * kernel.grad.abs().max()
    assert sure.float().mean() > 0.8
    expected = case.tensor("out/draem/after_step_first_kernel")
    case.close("out/draem/after_step_first_kernel", kernel.where(sure, expected), "after_step")
    assert ((kernel - expected).abs() < 2.01 * stage.recipe.learning_rate).all()


def test_perlin_noise(case):
    numbers = {name.split("/")[1] for name in case.arrays if name.startswith("perlin/")}
    for number in sorted(numbers):
        size = tuple(case.arrays[f"out/perlin/{number}/noise"].shape)
        noise = perlin_noise(case.tensor(f"perlin/{number}/unit_random"), size)
        case.close(f"out/perlin/{number}/noise", noise, "perlin")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mse_map", {"error": "mse"}),
        ("l1_map", {"error": "l1"}),
        ("ssim_map_reflect", {"error": "ssim", "border": "reflect"}),
    ],
)
def test_error_maps_of_an_autoencoder(case, name, options):
    draem, pixels = case.draem(), case.pixels()
    width = draem.config.reconstructive_width
    detector = Autoencoder.build(width=width, sigma=0.0, **options).eval()
    detector.network.load_state_dict(draem.reconstructive.state_dict())
    got = detector(pixels)
    case.close(f"out/ae/{name}", got.map)
    assert torch.equal(got.score, got.map.amax((1, 2)))


def test_ssim_with_zeros_outside(case):
    """Made with DRAEM's own, which takes values to span 2 where a reconstruction is below -0.5."""
    pixels = case.pixels()
    with torch.no_grad():
        r, _ = case.draem().repaired(pixels)
    assert r.amin((1, 2, 3)).max() < -0.5
    case.close("out/ae/ssim_map_zero_pad", (1 - ssim_map(r, pixels, span=2.0)).mean(1))


def test_ganomaly_sees_and_scores(case):
    detector = case.ganomaly()
    x = detector.padded((case.pixels("ganomaly/image") - 0.5) / 0.5)
    assert x.shape == tuple(case.tensor("out/ganomaly/padded_shape").tolist())
    with torch.no_grad():
        made, z, again = detector.generator(x)
        D = detector.discriminator
        case.close("out/ganomaly/reconstruction", made)
        case.close("out/ganomaly/latent_in", z.flatten(1))
        case.close("out/ganomaly/latent_out", again.flatten(1))
        case.close("out/ganomaly/discriminator", D(x).sigmoid().flatten())
        case.close("out/ganomaly/feature_mean", D.features(x).mean((1, 2, 3)))
    got = detector(x)
    case.close("out/ganomaly/image_score", got.score)
    step = detector.set_level("min_max", detector.empty())
    step.see(got)
    case.close("out/ganomaly/score_minmax", step.apply(got).score)


@pytest.mark.parametrize("flavour", ["original", "anomalib"])
def test_ganomaly_learns(case, flavour):
    detector = case.ganomaly(flavour).train()
    images = (case.pixels("ganomaly/image") - 0.5) / 0.5
    count = len(images)
    blank, labels = torch.zeros(count, 64, 64), torch.zeros(count, dtype=torch.int64)
    batch = TrainingBatch(images, blank, labels, ("part",) * count, torch.Generator())
    (stage,) = detector.stages()
    assert stage.together
    optimizers = [optimizer_of(each, stage.recipe) for each in stage.learners]
    made, z, again = detector.generator(images)
    terms = detector.generator_terms(images, made, z, again)
    place = f"out/ganomaly/{flavour}/loss"
    for short, value in zip(("adv", "con", "enc"), terms.values(), strict=True):
        case.close(f"{place}/{short}", value, "losses")
    for learner, short in zip(stage.learners, ("generator", "discriminator"), strict=True):
        total = sum(learner.loss(batch).values())
        case.close(f"{place}/{short}", total, "losses")
        parameters = [p for group in learner.groups for p in group["params"]]
        total.backward(inputs=parameters)
    for optimizer in optimizers:
        optimizer.step()
    sums = {
        "after_first_kernel_sum": detector.generator.encoder1,
        "after_discriminator_first_kernel_sum": detector.discriminator,
    }
    for name, network in sums.items():
        total = network.features[0].weight.double().abs().sum()
        case.close(f"{place}/{name}", total, "losses")
