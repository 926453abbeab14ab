"""Pretraining: losses fall, runs are reproducible and survive being killed, exports load."""

import json
import math
import random
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from zerodefect.backbones.clip import CLIP, CLIPConfig, TextConfig, VisionConfig, tokenize
from zerodefect.images import normalised
from zerodefect.pretraining.model_and_sheets import preview, samples
from zerodefect.pretraining.objectives import (
    WEIGHTS,
    Places,
    caption_loss,
    choose_windows,
    coverage,
    draw_prompts,
    embed_states,
    judged_patches,
    peak_loss,
    reference_loss,
    state_losses,
    total_loss,
    training_losses,
    window_embeddings,
)
from zerodefect.pretraining.pretrain_clip import (
    CHECKPOINT,
    SAMPLES,
    PretrainConfig,
    learning_rate,
    pretrain,
)
from zerodefect.procedural import DEFECT_KINDS, generate
from zerodefect.training.journal import CURVES, EVENTS, LOG, read_log
from zerodefect.training.run_state import TrainingError

TINY = CLIPConfig(
    embed_dim=16,
    vision=VisionConfig(image_size=32, patch_size=8, width=64, layers=1, heads=1),
    text=TextConfig(context_length=77, vocab_size=49408, width=64, heads=1, layers=1),
)
CONFIG = PretrainConfig(
    steps=7,
    text_steps=1,
    batch=4,
    warm_up=2,
    windows=2,
    groups=2,
    early_sizes=(32, 24),
    late_sizes=(32, 48),
    threads=1,
    model=TINY,
    checkpoint_every=2,
    log_every=1,
    workers=0,
)
CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_pretrain_clip import CONFIG
from zerodefect.pretraining.pretrain_clip import pretrain
pretrain(CONFIG, Path(sys.argv[1]), lambda step, losses: print(step, flush=True))
"""


pytestmark = pytest.mark.usefixtures("same_threads_afterwards")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    pretrain(CONFIG, folder)
    return folder


def log_of(folder: Path) -> list[dict[str, float]]:
    lines = list(read_log(folder / LOG))
    for line in lines:
        del line["images_per_second"], line["time"]
    return lines


def test_log_has_every_step_and_loss(finished: Path) -> None:
    lines = log_of(finished)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6, 7]
    assert set(lines[0]) == {"step", "loss", "loss/text"}
    terms = {f"loss/{name}" for name in WEIGHTS if name != "text"}
    for line in lines[1:]:
        assert set(line) == {"step", "loss", *terms}
    for line in lines:
        assert all(math.isfinite(value) for value in line.values())


@pytest.mark.killing
def test_killed_run_goes_on_to_the_same_weights(finished: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHILD, str(tmp_path), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.strip() == "3":  # one step behind the checkpoint, which is lost
                child.send_signal(signal.SIGKILL)
                break
    assert child.returncode == -signal.SIGKILL
    assert not (tmp_path / "embedded.safetensors").exists()
    pretrain(CONFIG, tmp_path)
    assert log_of(tmp_path) == log_of(finished)
    ours, theirs = load_file(tmp_path / CHECKPOINT), load_file(finished / CHECKPOINT)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def test_drawing_ahead_changes_nothing(finished: Path, tmp_path: Path) -> None:
    pretrain(replace(CONFIG, workers=1), tmp_path)
    assert log_of(tmp_path) == log_of(finished)


def test_a_run_stops_where_it_is_told_and_goes_on(finished: Path, tmp_path: Path) -> None:
    early = pretrain(CONFIG, tmp_path, until=3)  # behind no regular checkpoint
    assert [line["step"] for line in log_of(tmp_path)] == [1, 2, 3]
    with safe_open(early, "pt") as stored:
        assert stored.metadata()["steps"] == "3"
    pretrain(CONFIG, tmp_path, until=100)
    assert log_of(tmp_path) == log_of(finished)
    ours, theirs = load_file(early), load_file(finished / early.name)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_another_seed_gives_other_weights(finished: Path, tmp_path: Path) -> None:
    pretrain(replace(CONFIG, seed=1, steps=2), tmp_path)
    assert log_of(tmp_path)[1]["loss"] != log_of(finished)[1]["loss"]


def test_a_run_of_another_configuration_is_refused(finished: Path) -> None:
    with pytest.raises(TrainingError, match="batch was 4 and is now 5"):
        pretrain(replace(CONFIG, batch=5), finished)


def test_an_old_pytorch_is_told_what_to_do(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(TrainingError, match=r"PyTorch 2\.9 or newer.*pip install"):
        pretrain(CONFIG, tmp_path)


def test_a_broken_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).write_bytes(b"\x10\x00\x00")
    with pytest.raises(TrainingError, match=r"cannot be read .*delete it"):
        pretrain(CONFIG, tmp_path)


def test_export_is_half_precision_in_the_openai_layout(finished: Path) -> None:
    weights = load_file(finished / "embedded.safetensors")
    assert all(value.dtype == torch.float16 for value in weights.values())
    side_car = json.loads((finished / "embedded.json").read_text())
    config = CLIPConfig.from_open_clip(side_car)
    assert config == TINY
    ours = CLIP(config)
    ours.load_openai_state({name: value.float() for name, value in weights.items()})
    theirs = open_clip.CLIP(
        side_car["embed_dim"], side_car["vision_cfg"], side_car["text_cfg"], quick_gelu=False
    ).eval()
    theirs.load_state_dict({n: v.float() for n, v in weights.items()}, strict=False)
    pixels, ids = torch.rand(2, 3, 32, 32), tokenize(["a scratched screw", "a screw"])
    with torch.no_grad():
        torch.testing.assert_close(ours.visual(pixels), theirs.encode_image(pixels))
        torch.testing.assert_close(ours.text(ids), theirs.encode_text(ids))


def test_learning_rises_then_falls() -> None:
    config = replace(CONFIG, steps=120, text_steps=20, warm_up=10, learning_rate=1.0)
    image = [learning_rate(config, step, "visual") for step in range(120)]
    text = [learning_rate(config, step, "text") for step in range(120)]
    assert image[:20] == [0.0] * 20
    assert text[20:] == [0.0] * 100
    for rates, peak in ((image[20:], 9), (text[:20], 5)):
        assert rates[peak] == pytest.approx(1.0)
        assert all(a < b for a, b in pairwise(rates[: peak + 1]))
        assert all(a > b for a, b in pairwise(rates[peak + 1 :]))
        assert 0.01 <= rates[-1] < 0.03


def test_losses_fall_on_pictures_seen_again() -> None:
    torch.manual_seed(0)
    clip = CLIP(TINY)
    batch = generate(0, 0, 8, 32, pictures_per_product=2)
    optimizer = torch.optim.AdamW(clip.parameters(), 2e-3)
    totals = []
    for _ in range(30):
        losses = training_losses(clip, batch, normalised(batch.images), 1, windows=4, groups=1)
        total = total_loss(losses, 0.5)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    assert totals[-1] < 0.8 * totals[0]


def test_coverage_is_the_share_of_each_patch() -> None:
    batch = generate(0, 0, 6, 32)
    share, kind = coverage(batch, 8)
    mask = batch.masks.float()
    for number in range(16):
        row, column = divmod(number, 4)
        patch = mask[:, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8]
        torch.testing.assert_close(share[:, number], patch.mean((1, 2)))
    assert torch.equal(kind >= 0, share > 0)
    assert kind.max() < len(DEFECT_KINDS)


def test_windows_are_half_damaged_where_there_is_damage() -> None:
    share = torch.zeros(2, 30)
    share[0, [3, 7, 11, 20]] = 0.5
    chosen = choose_windows(share, 6, torch.Generator().manual_seed(0))
    assert chosen.shape == (2, 6)
    assert (share.gather(1, chosen) > 0).sum(1).tolist() == [3, 0]


def test_a_window_over_the_whole_grid_is_the_whole_picture() -> None:
    torch.manual_seed(0)
    clip = CLIP(TINY).eval()
    pixels = torch.rand(2, 3, 32, 32)
    patches = torch.arange(16)[None]
    windows = window_embeddings(
        clip, clip.visual.embed(pixels), torch.zeros(2, 1, dtype=torch.long), patches
    )
    torch.testing.assert_close(windows, clip.visual(pixels))


def test_state_loss_is_the_cross_entropy_of_winclip() -> None:
    torch.manual_seed(0)
    clip = CLIP(TINY)
    texts = embed_states(clip, draw_prompts(random.Random(0), 1), ["a photo of a screw."])
    z = torch.randn(2, 16)
    places = Places(torch.zeros(2, dtype=torch.long), torch.tensor([-1, 4]), torch.ones(2))
    found, _ = state_losses(z, texts, places)
    words = torch.stack([texts.normal[0], texts.anomalous[0]])
    cosines = torch.cosine_similarity(z[:, None], words[None], dim=-1)
    anomalous = torch.softmax(cosines / 0.07, 1)[:, 1]
    expected = -(torch.log(1 - anomalous[0]) + torch.log(anomalous[1])) / 2
    torch.testing.assert_close(found, expected)


def test_places_of_no_weight_do_not_count() -> None:
    torch.manual_seed(0)
    clip = CLIP(TINY)
    texts = embed_states(clip, draw_prompts(random.Random(0), 1), ["a"])
    z = torch.randn(3, 16)
    group, kind = torch.zeros(3, dtype=torch.long), torch.tensor([-1, 4, 2])
    without = state_losses(z, texts, Places(group, kind, torch.tensor([1.0, 1.0, 0.0])))
    alone = state_losses(z[:2], texts, Places(group[:2], kind[:2], torch.ones(2)))
    torch.testing.assert_close(without, alone)


def test_large_damage_counts_per_patch_less() -> None:
    share = torch.zeros(2, 20)
    share[0, :9] = 1.0
    share[1, 4] = 0.5
    share[1, 5] = 0.01  # damage too thin to be seen: neither clean nor damaged
    kind = torch.where(share > 0, 3, -1)
    places = judged_patches(share, kind, torch.tensor([0, 1]))
    weight = places.weight.view(2, 20)
    assert weight[0, :9].tolist() == pytest.approx([1 / 3] * 9)
    assert weight[1, 4] == 1.0
    assert weight[1, 5] == 0.0
    assert weight[0, 9:].tolist() == [1.0] * 11
    assert places.kind.view(2, 20)[1, 4:6].tolist() == [3, -1]
    assert places.group.view(2, 20)[:, 0].tolist() == [0, 1]


def test_reference_loss_wants_damage_far_from_the_twin() -> None:
    clean, other = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    right = torch.stack([clean.expand(4, 2), torch.stack([other, clean, clean, clean])])
    blind = clean.expand(2, 4, 2)
    share = torch.zeros(2, 4)
    share[1, 0] = 0.6
    assert reference_loss(right, share) < 0.02
    assert reference_loss(blind, share) > 2
    # The damaged patch of the twin is no reference: finding it there does not make damage normal.
    both = torch.stack([torch.stack([other, clean, clean, clean])] * 2)
    shares = torch.zeros(2, 4)
    shares[:, 0] = 0.6
    assert reference_loss(both, shares) < 0.02


@torch.no_grad()
def test_peak_loss_looks_at_the_highest_patches_alone() -> None:
    torch.manual_seed(0)
    texts = embed_states(CLIP(TINY), draw_prompts(random.Random(0), 1), ["a"])
    normal = torch.nn.functional.normalize(texts.normal[0], dim=0)
    anomalous = torch.nn.functional.normalize(texts.anomalous[0], dim=0)
    way = float((1 - normal @ anomalous) / 0.07)  # logit of a patch that says one or the other
    z = normal.repeat(2, 4, 1)
    share, group = torch.zeros(2, 4), torch.zeros(2, dtype=torch.long)
    calm = math.log1p(math.exp(-way))
    assert float(peak_loss(z, texts, group, share)) == pytest.approx(calm, rel=1e-4)
    share[1, :2] = 1.0  # damage of which one patch is found: as good as all of it
    z[1, 0] = anomalous
    assert float(peak_loss(z, texts, group, share)) == pytest.approx(calm, rel=1e-4)
    z[0, 3] = anomalous  # one false alarm in one of two pictures
    alarm = (math.log1p(math.exp(way)) + calm) / 2
    expected = (alarm + calm) / 2
    assert float(peak_loss(z, texts, group, share)) == pytest.approx(expected, rel=1e-4)
    assert peak_loss(z, texts, group, torch.full((2, 4), 0.01)) == 0  # nothing is certain


def test_steps_take_sizes_in_turn_and_no_picture_twice() -> None:
    config = replace(CONFIG, steps=21, early=0.5)
    taken = [config.pictures(step) for step in range(1, 21)]
    assert {size for _, _, size in taken[:10]} == {32, 24}
    assert {size for _, _, size in taken[10:]} == {32, 48}
    assert {size: count for _, count, size in taken} == {24: 6, 32: 4, 48: 2}
    for (start, count, _), (following, _, _) in pairwise(taken):
        assert start + count <= following


def test_captions_of_one_state_are_all_right_answers() -> None:
    z = torch.eye(4)
    kinds = torch.tensor([-1, -1, 3, 3])
    same = z[[0, 0, 2, 2]]
    swapped = same[[2, 3, 0, 1]]
    assert caption_loss(same, same, kinds) < 0.7  # two equal right answers: log 2
    assert caption_loss(same, swapped, kinds) > 5


def test_prompts_name_each_kind_and_state() -> None:
    groups = draw_prompts(random.Random(3), 5)
    assert len(groups) == 5
    for normal, anomalous, kinds in groups:
        assert len(kinds) == len(DEFECT_KINDS)
        assert not set(normal) & set(anomalous)
        assert all("{}" not in text for text in normal + anomalous + kinds)


def test_a_run_shows_curves_and_what_it_says_of_pictures(finished: Path) -> None:
    assert len(list(finished.glob(EVENTS))) == 1
    for name in (CURVES, SAMPLES):
        with Image.open(finished / name) as image:
            assert image.width > 400


def test_samples_show_the_map_between_black_and_white(tmp_path: Path) -> None:
    torch.manual_seed(0)
    clip, batch = CLIP(TINY).eval(), generate(0, 0, 3, 32)
    with Image.open(samples(tmp_path / "a.png", clip, batch)) as sheet:
        assert sheet.size == (3 * 3 * 32, 32)
        undecided = sheet.crop((64, 0, 96, 32)).convert("L").getextrema()
    assert 0 < undecided[0] <= undecided[1] < 255
    with torch.no_grad():
        clip.visual.proj.zero_()
    with Image.open(samples(tmp_path / "b.png", clip, batch)) as sheet:
        assert sheet.crop((64, 0, 96, 32)).convert("L").getextrema() == (128, 128)


def test_preview_is_a_picture(tmp_path: Path) -> None:
    with Image.open(preview(tmp_path / "sheet.png", count=10, size=32)) as sheet:
        assert sheet.size == (8 * 2 * 32, 2 * 32)
