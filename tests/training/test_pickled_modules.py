"""Official files that hold a pickled module or a lone tensor: read, and nothing in them is run."""

from __future__ import annotations

import io
import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import tiny_backbone, write_tiny_weights
from small_detectors import alter, images, same, taught
from torch import nn

import zerodefect
from zerodefect.detector.checkpoint_file import CheckpointError
from zerodefect.detector.official_files import LONE_TENSOR
from zerodefect.methods import create, get
from zerodefect.training.official_import import (
    import_checkpoint,
    read_published,
    read_together,
)
from zerodefect.training.pickled_modules import StandIn, parameters_of

CLASSES = get("af_clip").official_classes


@pytest.fixture
def theirs(monkeypatch):
    """Classes as the authors name them; gone again when the file is read."""
    module = types.ModuleType("clip.adaptor")
    for name in ("Adaptor", "BasicTransformerBlock", "CrossAttention", "Surprise"):
        made = type(name, (nn.Module,), {"__module__": "clip.adaptor", "__qualname__": name})
        setattr(module, name, made)
    monkeypatch.setitem(sys.modules, "clip", types.ModuleType("clip"))
    monkeypatch.setitem(sys.modules, "clip.adaptor", module)
    return module


def adaptor(theirs, detector) -> nn.Module:
    """Their module with the values of a detector of ours."""
    own = detector.adaptor
    attention = theirs.CrossAttention()
    attention.heads, attention.scale = 8, 64**-0.5
    attention.to_q, attention.to_k, attention.to_v = own.to_q, own.to_k, own.to_v
    attention.to_out = nn.Sequential(own.to_out, nn.Dropout(0.0))
    block = theirs.BasicTransformerBlock()
    block.attn, block.norm = attention, own.norm
    whole = theirs.Adaptor()
    whole.attention = block
    return whole


def files(theirs, folder: Path, detector) -> list[Path]:
    context = nn.Parameter(detector.prompts.state_prompt_embedding.detach()[0])
    paths = [folder / "visa_prompt.pt", folder / "visa_adaptor.pt"]
    torch.save(context, paths[0])
    torch.save(adaptor(theirs, detector), paths[1])
    return paths


def test_the_two_files_become_one_checkpoint(tmp_path, theirs, monkeypatch):
    written = create("af_clip", tiny_backbone(), context_length=5).eval()
    alter(written)
    paths = files(theirs, tmp_path, written)
    monkeypatch.delitem(sys.modules, "clip.adaptor")
    weights = str(write_tiny_weights(tmp_path))
    output = tmp_path / "ours.safetensors"
    made = import_checkpoint("af_clip", paths[::-1], output, backbone=weights)
    assert made.origin["file"] == ["visa_adaptor.pt", "visa_prompt.pt"]
    loaded = zerodefect.load(checkpoint=output, backbone=weights, device="cpu").detector
    assert loaded.config.context_length == 5
    for name, value in written.learned.items():
        assert torch.equal(loaded.learned[name], value), name
    given = images(2)
    same(loaded(given, taught(loaded)), written(given, taught(written)), atol=1e-5)


def test_one_of_two_files_says_what_is_missing(tmp_path, theirs):
    paths = files(theirs, tmp_path, create("af_clip", tiny_backbone()))
    weights = str(write_tiny_weights(tmp_path))
    told = {paths[0]: r"attention\.norm\.weight is missing", paths[1]: "the tensor is missing"}
    for path, fault in told.items():
        with pytest.raises(
            CheckpointError, match=f"_prompt.pt and .*_adaptor.pt together: .*{fault}"
        ):
            import_checkpoint("af_clip", path, tmp_path / "o.safetensors", backbone=weights)


def test_the_two_files_of_aa_clip_share_their_epoch(tmp_path):
    written = create("aa_clip", tiny_backbone()).eval()
    alter(written)
    for part in ("text_adapter", "image_adapter"):
        state = getattr(written, part).state_dict()
        optimizer = torch.optim.Adam(getattr(written, part).parameters()).state_dict()
        side = part.partition("_")[0]
        content = {"epoch": 5, part: state, f"{side}_optimizer": optimizer}
        torch.save(content, tmp_path / f"{part}.pth")
    weights, output = str(write_tiny_weights(tmp_path)), tmp_path / "ours.safetensors"
    paths = [tmp_path / "text_adapter.pth", tmp_path / "image_adapter.pth"]
    import_checkpoint("aa_clip", paths, output, backbone=weights)
    loaded = zerodefect.load(checkpoint=output, backbone=weights, device="cpu").detector
    given = images(2)
    same(loaded(given, taught(loaded)), written(given, taught(written)), atol=1e-5)
    with pytest.raises(CheckpointError, match=r"text_adapter\.pth: text_adapter stands in another"):
        read_together([*paths, paths[0]])
    with pytest.raises(CheckpointError, match="image_adapter is missing"):
        import_checkpoint("aa_clip", paths[0], output, backbone=weights)


def test_other_classes_and_other_methods_are_refused_by_name(tmp_path, theirs):
    whole = adaptor(theirs, create("af_clip", tiny_backbone()))
    torch.save(whole, tmp_path / "a.pt")
    assert "attention.attn.to_out.0.bias" in read_published(tmp_path / "a.pt", CLASSES)
    with pytest.raises(CheckpointError, match=r"code or objects: clip\.adaptor\.Adaptor"):
        read_published(tmp_path / "a.pt")
    whole.more = theirs.Surprise()
    torch.save(whole, tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match=r"code or objects: clip\.adaptor\.Surprise"):
        read_published(tmp_path / "b.pt", CLASSES)
    torch.save(nn.Linear(2, 2), tmp_path / "c.pt")
    with pytest.raises(
        CheckpointError, match=r"code or objects: torch\.nn\.modules\.linear\.Linear"
    ):
        read_published(tmp_path / "c.pt")


def test_a_lone_tensor_has_a_name(tmp_path):
    torch.save(nn.Parameter(torch.ones(2)), tmp_path / "a.pt")
    assert torch.equal(read_published(tmp_path / "a.pt")[LONE_TENSOR], torch.ones(2))


def test_a_module_inside_itself_ends():
    inner = StandIn()
    inner.__setstate__({"_modules": {"again": inner}, "_parameters": {"w": torch.ones(1)}})
    with pytest.raises(pickle.UnpicklingError, match="inside itself"):
        parameters_of(inner)


# --- nothing is run ------------------------------------------------------------------------------

RUN: list[object] = []


def strike(*arguments: object) -> object:
    """What a hostile file would like to have called."""
    RUN.append(arguments)
    return OrderedDict()


class Reduced:
    """Pickled as a call of any function."""

    def __init__(self, function: object, arguments: tuple, state: object = None) -> None:
        self.made = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.made


def weapons(marker: Path) -> list[tuple[object, tuple]]:
    """Functions with arguments that would leave a trace."""
    text = f"open({str(marker)!r}, 'w')"
    return [
        (strike, (1,)),
        (eval, (text,)),
        (exec, (text,)),
        (open, (str(marker), "w")),
        (os.system, (f"touch {marker}",)),
        (os.mkdir, (str(marker),)),
        (getattr, (strike, "__call__")),
        (__import__, ("this",)),
        (Path.touch, (marker.parent / marker.name,)),
        (map, (strike, [1])),
        (torch.load, (str(marker),)),
        (torch.hub.load, ("nowhere", "model")),
    ]


def placed(hostile: object, theirs_name: str, place: str) -> object:
    """A hostile object where a file could carry it."""
    if place == "alone":
        return hostile
    if place == "in a dictionary":
        return {"w": torch.ones(2), "x": [hostile]}
    if place == "as a state":
        return Reduced(class_named(theirs_name), (), {"_parameters": {"w": hostile}})
    return Reduced(class_named(theirs_name), (hostile,))


def class_named(name: str) -> type:
    module, _, short = name.rpartition(".")
    return getattr(sys.modules[module], short)


def written(content: object, *, zipped: bool, folder: Path) -> Path:
    path = folder / "file.pt"
    if zipped:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    return path


def quiet(path: Path, marker: Path) -> None:
    """Read the file as the importer does; whatever comes of it, nothing was run."""
    try:
        read_published(path, CLASSES)
    except CheckpointError as error:
        assert "\n" not in str(error) and str(path) in str(error)
    assert not RUN
    assert not marker.exists()


@cache
def shared_detector() -> Any:
    return create("af_clip", tiny_backbone())


fuzz = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@fuzz
@given(
    weapon=st.integers(0, 11),
    place=st.sampled_from(["alone", "in a dictionary", "as a state", "as an argument"]),
    named=st.sampled_from([name for name in CLASSES]),
    zipped=st.booleans(),
)
def test_hostile_reduces_are_not_called(weapon, place, named, zipped, tmp_path, theirs):
    marker = tmp_path / "ran"
    function, arguments = weapons(marker)[weapon]
    content = placed(Reduced(function, arguments), named, place)
    path = written(content, zipped=zipped, folder=tmp_path)
    quiet(path, marker)
    with pytest.raises(CheckpointError):  # all of it is refused, none of it is skipped over
        read_published(path, CLASSES)


def _opcodes() -> st.SearchStrategy[bytes]:
    """Pickles of protocol 2 that name, call and build whatever comes."""
    names = [*CLASSES, "builtins.eval", "os.system", "torch.nn.modules.linear.Linear"]
    names += [f"{__name__}.strike", "collections.OrderedDict", "torch._utils._rebuild_parameter"]
    split = [name.rpartition(".") for name in names]
    calls = [b"c" + f"{module}\n{name}\n".encode() for module, _, name in split]
    values = [
        b")",
        b"}",
        b"]",
        b"N",
        b"K\x01",
        b"X\x01\x00\x00\x00a",
        b"\x85",
        b"(",
        b"t",
        b"q\x00",
    ]
    acts = [b"R", b"b", b"\x81", b"s", b"u", b"a", b"e", b"h\x00", b"0", b"2"]
    parts = st.sampled_from([*calls, *values, *acts])
    return st.lists(parts, max_size=14).map(lambda each: b"\x80\x02" + b"".join(each) + b".")


@fuzz
@given(program=_opcodes(), zipped=st.booleans())
def test_any_program_of_a_pickle_runs_nothing(program, zipped, tmp_path):
    path, marker = tmp_path / "file.pt", tmp_path / "ran"
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("file/data.pkl", program)
            archive.writestr("file/version", b"3\n")
            archive.writestr("file/byteorder", b"little")
    else:
        path.write_bytes(program)
    quiet(path, marker)


@fuzz
@given(data=st.data())
def test_cut_off_and_changed_files_are_refused_or_read(data, tmp_path, theirs):
    buffer = io.BytesIO()
    torch.save(adaptor(theirs, shared_detector()), buffer)
    whole = bytearray(buffer.getvalue())
    if data.draw(st.booleans()):
        del whole[data.draw(st.integers(0, len(whole) - 1)) :]
    else:
        place = data.draw(st.integers(0, 4000))  # where the pickle lies
        whole[place] = data.draw(st.integers(0, 255))
    path = tmp_path / "file.pt"
    path.write_bytes(bytes(whole))
    quiet(path, tmp_path / "ran")
