"""Files that appear whole or not at all."""

import os

import pytest

from zerodefect.files import StoreError, atomic_write


@pytest.mark.parametrize("cached", [False, True])
def test_a_file_appears_when_it_is_complete(tmp_path, cached):
    path = tmp_path / "deep" / "er" / "x.bin"
    with atomic_write(path, cached=cached) as file:
        file.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_what_stood_there_stays_when_the_block_fails(tmp_path, cached, error):
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")
    with pytest.raises(error), atomic_write(path, cached=cached) as file:
        file.write(b"half")
        raise error
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_a_cached_file_do_not_meet(tmp_path):
    path = tmp_path / "x.bin"
    with atomic_write(path, cached=True) as one, atomic_write(path, cached=True) as other:
        one.write(b"one")
        other.write(b"the other")
    assert path.read_bytes() == b"one"  # the outer block ends last


def test_only_what_cannot_be_made_anew_is_forced_to_the_disk(tmp_path, monkeypatch):
    forced = []
    monkeypatch.setattr(os, "fsync", forced.append)
    with atomic_write(tmp_path / "a", cached=True):
        pass
    assert not forced
    with atomic_write(tmp_path / "b"):
        pass
    assert forced


def test_a_refusal_of_the_system_names_the_file(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(StoreError, match=r"file/x\.bin"),
        atomic_write(tmp_path / "file" / "x.bin"),
    ):
        raise AssertionError("unreachable")
