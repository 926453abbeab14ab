"""Zips from anywhere: whatever is wrong with one, it is told in a line and does no harm."""

from __future__ import annotations

import io
import stat
import subprocess
import sys
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zerodefect.inspection import archive as archives
from zerodefect.inspection.archive import Archive, ProductError, write_archive

MEMBERS = {"product.json": b'{"a": 1}', "knowledge.safetensors": bytes(range(256)) * 8}


def zipped(path, *members, method=zipfile.ZIP_DEFLATED):
    """A zip of ``(name or ZipInfo, content)``."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def link(name):
    told = zipfile.ZipInfo(name)
    told.external_attr = (stat.S_IFLNK | 0o777) << 16
    return told


def test_what_was_written_is_read_and_the_same_gives_the_same_bytes(tmp_path):
    for name in ("a.zd", "b.zd"):
        write_archive(tmp_path / name, MEMBERS)
    read = Archive(tmp_path / "a.zd")
    assert read.sizes == {name: len(content) for name, content in MEMBERS.items()}
    assert {name: read.read(name) for name in read.sizes} == MEMBERS
    assert (tmp_path / "a.zd").read_bytes() == (tmp_path / "b.zd").read_bytes()


def test_a_zip_that_was_packed_again_by_hand_is_read(tmp_path):
    path = zipped(tmp_path / "again.zd", ("good/", b""), *MEMBERS.items())
    assert Archive(path).read("product.json") == MEMBERS["product.json"]


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("../out.txt", b"x")], "'../out.txt' in it leads out of the folder"),
        ([("a/../../b", b"x")], "leads out of the folder"),
        ([("/etc/passwd", b"x")], "leads out of the folder"),
        ([("..\\out.txt", b"x")], "is no plain name"),
        ([("C:out.txt", b"x")], "is no plain name"),
        ([(link("roi.png"), b"/etc/passwd")], "'roi.png' in it is a link"),
        ([("a.json", b"x"), ("A.json", b"y")], "'A.json' in it stands there twice"),
        ([("bomb.json", bytes(50_000_000))], "would unpack from .* to 50,000,000 bytes, as a bomb"),
    ],
)
def test_members_that_could_do_harm_are_refused_before_anything_is_read(members, reason, tmp_path):
    path = zipped(tmp_path / "bad.zd", ("product.json", b"{}"), *members)
    with pytest.raises(ProductError, match=f"bad.zd: .*{reason}") as caught:
        Archive(path)
    assert "\n" not in str(caught.value) and caught.value.remedy


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_same_name_twice_is_refused(tmp_path):
    path = zipped(tmp_path / "twice.zd", ("product.json", b"{}"), ("product.json", b"[]"))
    with pytest.raises(ProductError, match=r"'product.json' in it stands there twice"):
        Archive(path)


def test_encrypted_members_and_rare_packing_are_refused(tmp_path):
    data = bytearray(zipped(tmp_path / "a.zd", ("product.json", b"{}")).read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag in the directory
    (tmp_path / "locked.zd").write_bytes(data)
    with pytest.raises(ProductError, match=r"'product.json' in it is encrypted"):
        Archive(tmp_path / "locked.zd")
    path = zipped(tmp_path / "rare.zd", ("product.json", b"{}"), method=zipfile.ZIP_LZMA)
    with pytest.raises(ProductError, match=r"is packed by a method that is not read"):
        Archive(path)


def test_too_many_members_and_too_many_bytes_are_refused(tmp_path, monkeypatch):
    path = zipped(tmp_path / "many.zd", *((f"{n}.txt", b"x") for n in range(12)))
    monkeypatch.setattr(archives, "_MOST_MEMBERS", 10)
    with pytest.raises(ProductError, match=r"holds 12 members, at most 10 are read"):
        Archive(path)
    monkeypatch.setattr(archives, "_MOST_MEMBERS", 100)
    monkeypatch.setattr(archives, "_LARGEST", 11)
    with pytest.raises(ProductError, match=r"would unpack to 12 bytes, at most 11 are read"):
        Archive(path)


def test_members_that_share_their_bytes_are_refused(tmp_path):
    """A bomb without a high ratio: many names for one packed member."""
    packed = zipped(tmp_path / "one.zd", ("a", bytes(range(256)) * 40)).read_bytes()
    place = packed.index(b"PK\x01\x02")
    end = packed.index(b"PK\x05\x06")
    entry = packed[place:end]
    names = [
        entry[:46] + bytes([letter]) + entry[47:] for letter in b"abcdefghijklmnopqrstuvwxyz" * 9
    ]
    unique = [
        e[:28] + (2).to_bytes(2, "little") + e[30:46] + f"{n:02x}".encode() + e[47:]
        for n, e in enumerate(names)
    ]
    directory = b"".join(unique)
    tail = bytearray(packed[end:])
    tail[8:10] = tail[10:12] = len(unique).to_bytes(2, "little")
    tail[12:16] = len(directory).to_bytes(4, "little")
    (tmp_path / "shared.zd").write_bytes(packed[:place] + directory + tail)
    with pytest.raises(ProductError, match=r"shared.zd"):
        found = Archive(tmp_path / "shared.zd")
        found.read_all(list(found.sizes))


def test_a_member_larger_than_asked_for_or_missing_is_told(tmp_path):
    write_archive(tmp_path / "a.zd", MEMBERS)
    read = Archive(tmp_path / "a.zd")
    with pytest.raises(ProductError, match=r"knowledge.safetensors in it takes 2,048 bytes"):
        read.read("knowledge.safetensors", 2047)
    with pytest.raises(ProductError, match=r"none\.json is missing in it"):
        read.read("none.json")


@pytest.mark.parametrize("content", [b"", b"x", b"PK\x03\x04", b"{}", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_zip_or_holds_nothing_is_told(content, tmp_path):
    path = tmp_path / "odd.zd"
    path.write_bytes(content)
    with pytest.raises(ProductError, match=r"odd\.zd: "):
        Archive(path).read("product.json")
    for place, reason in ((tmp_path, "cannot be read"), (tmp_path / "none.zd", "no such file")):
        with pytest.raises(ProductError, match=reason):
            Archive(place)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_is_cut_off_or_changed_is_told_or_reads_as_it_was(data):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in MEMBERS.items():
            archive.writestr(name, content)
    whole = bytearray(buffer.getvalue())
    if data.draw(st.booleans()):
        whole = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        for _ in range(data.draw(st.integers(1, 3))):
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "changed.zd"
        path.write_bytes(whole)
        try:
            read = Archive(path)
            found = {name: read.read(name) for name in read.sizes}
        except ProductError as error:
            assert "\n" not in str(error)
        else:  # a date, a name, what nobody reads
            assert all(content in MEMBERS.values() for content in found.values())


def test_a_name_that_was_changed_to_a_line_break_is_told_in_one_line(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("product.json", "{}")
    whole = buffer.getvalue()
    listed = whole.rindex(b"product.json")
    path = tmp_path / "changed.zd"
    path.write_bytes(whole[:listed] + b"\n" + whole[listed + 1 :])
    read = Archive(path)
    with pytest.raises(ProductError) as caught:
        read.read(*read.sizes)
    assert "\n" not in str(caught.value) and "is damaged" in str(caught.value)


@pytest.mark.killing
def test_two_processes_that_write_one_file_at_once_leave_it_whole(tmp_path):
    code = (
        "import sys\nfrom zerodefect.inspection.archive import write_archive\n"
        "for _ in range(40):\n"
        "    write_archive(sys.argv[1], {'a.bin': sys.argv[2].encode() * 500_000})"
    )
    path = tmp_path / "one.zd"
    jobs = [subprocess.Popen([sys.executable, "-c", code, path, each]) for each in "xy"]
    assert [job.wait(120) for job in jobs] == [0, 0]
    assert set(Archive(path).read("a.bin")) in ({ord("x")}, {ord("y")})
    assert list(tmp_path.iterdir()) == [path]
