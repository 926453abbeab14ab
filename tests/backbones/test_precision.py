"""Which precision networks run in."""

import logging

import pytest
import torch

from zerodefect.backbones import precision
from zerodefect.backbones.precision import computes_bfloat16, pick_precision


@pytest.fixture(params=[True, False], ids=["hardware", "emulated"])
def hardware(request, monkeypatch):
    monkeypatch.setattr(precision, "computes_bfloat16", lambda device: request.param)
    return request.param


def test_auto_is_bfloat16_only_where_the_device_has_it(hardware, caplog):
    assert pick_precision("auto", "cpu") == ("bfloat16" if hardware else "float32")
    assert pick_precision("float32", "cpu") == "float32"
    assert not caplog.records


def test_emulated_bfloat16_is_kept_with_a_warning(hardware, caplog):
    with caplog.at_level(logging.WARNING, "zerodefect"):
        assert pick_precision("bfloat16", "cpu") == "bfloat16"
    assert ["only emulates" in record.message for record in caplog.records] == [True] * (
        not hardware
    )


@pytest.mark.parametrize("has", [(False, False), (True, False), (False, True)])
def test_x86_has_it_with_avx512_bf16_or_amx(monkeypatch, has):
    monkeypatch.setattr(precision.platform, "machine", lambda: "x86_64")
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    for name, value in zip(names, has, strict=True):
        monkeypatch.setattr(torch.cpu, name, lambda value=value: value, raising=False)
    assert computes_bfloat16("cpu") == any(has)


def test_another_precision_is_refused():
    with pytest.raises(ValueError, match="float32, bfloat16 or auto, not 'float16'"):
        pick_precision("float16", "cpu")
