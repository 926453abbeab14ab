"""Official files: read without running code, checked, written as ours."""

from __future__ import annotations

import hashlib
import json
import pickle

import pytest
import torch
from models import tiny_backbone, write_tiny_weights
from official_samples import official_file
from safetensors.torch import save_file
from toy_method import registered
from typer.testing import CliRunner

import zerodefect
from zerodefect.cli import app
from zerodefect.detector.checkpoint_file import CheckpointError
from zerodefect.detector.contract import UnsupportedError
from zerodefect.methods import create
from zerodefect.training.official_import import import_checkpoint, read_published


@pytest.fixture(autouse=True)
def _toy():
    with registered():
        yield


def published(hidden: int = 6) -> dict:
    draws = torch.Generator().manual_seed(1)
    return {
        "epoch": 15,
        "w1": torch.randn(hidden, 192, generator=draws).half(),
        "w2": torch.randn(2, hidden, generator=draws),
        "u": torch.zeros(2),
    }


def test_values_and_what_their_shapes_tell_are_taken_over(tmp_path):
    weights = write_tiny_weights(tmp_path)
    torch.save(published(), tmp_path / "epoch_15.pth")
    made = import_checkpoint(
        "toy", tmp_path / "epoch_15.pth", tmp_path / "ours.safetensors", backbone=str(weights)
    )
    digest = hashlib.sha256((tmp_path / "epoch_15.pth").read_bytes()).hexdigest()
    assert made.origin == {"how": "imported", "file": "epoch_15.pth", "sha256": digest}
    assert made.config["hidden"] == 6
    detector = zerodefect.load(checkpoint=made.path, backbone=str(weights), device="cpu").detector
    assert torch.equal(detector.first, published()["w1"].float())
    assert torch.equal(detector.second, published()["w2"])


def test_faults_are_listed_before_anything_is_written(tmp_path):
    weights = write_tiny_weights(tmp_path)
    wrong = {**published(), "extra": torch.zeros(1)}
    del wrong["u"]
    torch.save(wrong, tmp_path / "wrong.pth")
    with pytest.raises(ValueError, match="u is missing; extra is unknown"):
        import_checkpoint(
            "toy", tmp_path / "wrong.pth", tmp_path / "ours.safetensors", backbone=str(weights)
        )
    assert not (tmp_path / "ours.safetensors").exists()


def test_methods_without_an_official_format_say_so(tmp_path):
    torch.save(published(), tmp_path / "a.pth")
    with pytest.raises(UnsupportedError, match="no official checkpoint format"):
        import_checkpoint(
            "winclip", tmp_path / "a.pth", tmp_path / "b.safetensors",
            backbone=str(write_tiny_weights(tmp_path)),
        )  # fmt: skip


class Code:
    """Stands for code in a pickle."""


def test_files_that_carry_code_or_are_damaged_or_absent_are_refused(tmp_path):
    with (tmp_path / "code.pth").open("wb") as file:
        pickle.dump({"w1": Code()}, file, protocol=2)
    torch.save({"w1": Code()}, tmp_path / "zip.pth")
    (tmp_path / "damaged.pth").write_bytes(b"none")
    torch.save([1, 2], tmp_path / "list.pth")
    for name, told in (
        ("code.pth", "cannot be read as plain values"),
        ("zip.pth", "cannot be read as plain values"),
        ("damaged.pth", "cannot be read as plain values"),
        ("list.pth", "holds a list instead of named values"),
        ("absent.pth", "no such file"),
    ):
        with pytest.raises(CheckpointError, match=told) as caught:
            read_published(tmp_path / name)
        assert "weights_only" not in str(caught.value)  # torch's advice is to run the code
    with pytest.raises(CheckpointError, match=r"carries code or objects: \S*Code"):
        read_published(tmp_path / "zip.pth")


def test_faults_name_the_file_and_keys_may_be_numbers(tmp_path):
    torch.save({1: torch.zeros(2)}, tmp_path / "numbers.pth")
    backbone = str(write_tiny_weights(tmp_path))
    for method in ("toy", "adaclip"):
        with pytest.raises(CheckpointError, match=r"numbers\.pth: .* 1 is unknown"):
            import_checkpoint(
                method, tmp_path / "numbers.pth", tmp_path / "b.safetensors", backbone=backbone
            )


def test_safetensors_are_read_too(tmp_path):
    tensors = {k: v for k, v in published().items() if k != "epoch"}
    save_file(tensors, tmp_path / "a.safetensors")
    assert torch.equal(read_published(tmp_path / "a.safetensors")["w2"], tensors["w2"])


# --- the verb ------------------------------------------------------------------------------------


def test_the_verb_prints_the_hash_and_how_to_go_on(tmp_path):
    weights = write_tiny_weights(tmp_path)
    source, target = tmp_path / "epoch_15.pth", tmp_path / "ours.safetensors"
    torch.save(published(), source)
    done = CliRunner().invoke(
        app, ["import", "toy", str(source), "--backbone", str(weights), "--output", str(target)]
    )
    assert done.exit_code == 0, done.output
    assert hashlib.sha256(source.read_bytes()).hexdigest() in done.output
    assert f"--checkpoint {target}" in done.output
    assert json.loads(target.with_suffix(".json").read_text())["origin"]["how"] == "imported"


def test_absent_weights_are_explained(tmp_path):
    torch.save(published(), tmp_path / "a.pth")
    done = CliRunner().invoke(
        app, ["import", "toy", str(tmp_path / "a.pth"), "--backbone", "ViT-L-14-336/openai"]
    )
    assert "zerodefect backbones --fetch ViT-L-14-336/openai" in str(done.exception)


def test_the_name_of_the_result_ends_in_safetensors(tmp_path):
    torch.save(published(), tmp_path / "a.pth")
    done = CliRunner().invoke(app, ["import", "toy", str(tmp_path / "a.pth"), "-o", "x.pth"])
    assert "ends in .safetensors" in str(done.exception)


# --- files that do not fit -----------------------------------------------------------------------


def official(tmp_path, method: str, **shape: int):
    detector = create(method, tiny_backbone(**shape))
    torch.save(official_file(detector), tmp_path / "epoch_15.pth")
    return tmp_path / "epoch_15.pth"


@pytest.mark.parametrize("method", ["anomalyclip", "april_gan"])
def test_a_file_for_another_backbone_names_it(tmp_path, method):
    wide = {"text_width": 768, "vision_width": 1024, "embed_dim": 768}
    source = official(tmp_path, method, vision_layers=4, text_layers=1, **wide)
    ours = str(write_tiny_weights(tmp_path))
    told = r"epoch_15\.pth: made for another backbone, ViT-L-14-336/openai \(--backbone\)\. "
    with pytest.raises(CheckpointError, match=told) as caught:
        import_checkpoint(method, source, tmp_path / "b.safetensors", backbone=ours)
    assert "not a file of" not in str(caught.value)


@pytest.mark.slow
def test_a_file_of_another_method_names_that(tmp_path):
    source = official(tmp_path, "anomalyclip")
    ours = str(write_tiny_weights(tmp_path))
    others = "anomalyclip or crane or leclip: zerodefect import anomalyclip$"
    told = f"not a file of adaclip, but of {others}"
    with pytest.raises(CheckpointError, match=told):
        import_checkpoint("adaclip", source, tmp_path / "b.safetensors", backbone=ours)
