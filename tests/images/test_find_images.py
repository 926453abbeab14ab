import inspect
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from zerodefect.images import ImageError, encode_png, find_images, open_image

PNG = encode_png(np.zeros((2, 2, 3), np.uint8))


def put(folder, *names, data=PNG):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def names(paths, root):
    return [path.relative_to(root).as_posix() for path in paths]


def test_folder_in_natural_order_at_any_depth(tmp_path):
    put(tmp_path, "part10.png", "part2.png", "Part1.PNG", "b/2.jpg", "b/10.tif", "a 1/x.webp")
    expected = ["a 1/x.webp", "b/2.jpg", "b/10.tif", "Part1.PNG", "part2.png", "part10.png"]
    assert names(find_images([tmp_path]), tmp_path) == expected
    assert names(find_images([str(tmp_path)]), tmp_path) == expected


def test_content_and_ending_both_count(tmp_path):
    put(tmp_path, "no_ending", "odd.dat")
    put(tmp_path, "broken.jpg", data=b"")
    put(tmp_path, "phone.heic", data=b"\0\0\0\x18ftypheic")
    put(tmp_path, "readme.txt", "table.csv", "empty", data=b"")
    put(tmp_path, "report.pdf", data=b"%PDF-1.7")
    expected = ["broken.jpg", "no_ending", "odd.dat", "phone.heic"]
    assert names(find_images([tmp_path]), tmp_path) == expected


def test_named_file_is_always_listed_and_each_file_once(tmp_path):
    put(tmp_path, "notes.txt", data=b"words")
    put(tmp_path, "a.png")
    named = [tmp_path / "notes.txt", tmp_path / "a.png", tmp_path]
    assert names(find_images(named), tmp_path) == ["notes.txt", "a.png"]
    assert names(find_images([tmp_path, tmp_path / "a.png"]), tmp_path) == ["a.png"]


def test_hidden_files_and_folders_are_skipped(tmp_path):
    put(tmp_path, "a.png", ".hidden.png", "._a.png", ".cache/b.png")
    assert names(find_images([tmp_path]), tmp_path) == ["a.png"]


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need rights on Windows")
def test_links_are_followed_but_loops_end(tmp_path):
    put(tmp_path, "parts/a.png", "elsewhere/b.png")
    (tmp_path / "parts" / "loop").symlink_to(tmp_path / "parts")
    (tmp_path / "parts" / "other").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "parts" / "gone.png").symlink_to(tmp_path / "nothing.png")
    found = names(find_images([tmp_path / "parts"]), tmp_path)
    assert found == ["parts/a.png", "parts/gone.png", "parts/other/b.png"]


@pytest.mark.skipif(os.name == "nt", reason="named pipes are POSIX")
def test_named_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    put(tmp_path, "a.png")
    assert names(find_images([tmp_path]), tmp_path) == ["a.png"]


def test_backslashes_and_spaces(tmp_path, monkeypatch):
    put(tmp_path, "good parts/line 1/a b.png")
    monkeypatch.chdir(tmp_path)
    for path in ("good parts\\line 1\\a b.png", "good parts\\line 1", Path("good parts/line 1")):
        assert [found.name for found in find_images([path])] == ["a b.png"]


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.*Check the path"):
        find_images([tmp_path / "nowhere"])
    put(tmp_path, "notes.txt", data=b"words")
    with pytest.raises(ImageError) as caught:
        find_images([tmp_path])
    assert "no pictures" in caught.value.reason
    assert ".png" in caught.value.remedy


def test_folder_that_may_not_be_read(tmp_path, monkeypatch):
    put(tmp_path, "a.png")

    def deny(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", deny)
    with pytest.raises(ImageError, match="Permission denied"):
        find_images([tmp_path])


def test_a_closed_folder_and_a_missing_path_stand_among_the_pictures(tmp_path, monkeypatch):
    put(tmp_path, "a/1.png", "closed/2.png", "z/3.png")
    (tmp_path / "empty").mkdir()
    listed = os.listdir

    def deny(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "listdir", deny)
    given = [tmp_path / "none.png", tmp_path, tmp_path / "empty"]
    found = find_images(given)
    assert names(found, tmp_path) == ["none.png", "a/1.png", "closed", "z/3.png", "empty"]
    reasons = {}
    for path in found:
        try:
            open_image(path)
        except ImageError as error:
            reasons[path.name] = error.reason
    assert reasons == {
        "none.png": "there is no such file",
        "closed": "the folder cannot be read (Permission denied)",
        "empty": "the folder holds no pictures",
    }
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        find_images([given[0], given[2]])


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root opens everything")
@pytest.mark.parametrize("mode", [0o000, 0o444, 0o111])
def test_folders_without_rights_are_listed(tmp_path, mode):
    put(tmp_path, "a.png", "closed/inner/b.png")
    (tmp_path / "closed").chmod(mode)
    try:
        assert names(find_images([tmp_path]), tmp_path) == ["a.png", "closed"]
    finally:
        (tmp_path / "closed").chmod(0o755)


def test_the_depth_of_a_tree_is_not_that_of_the_program(tmp_path):
    put(tmp_path, "/".join(["d"] * 150) + "/a.png", "top.png")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 100)
    try:
        found = find_images([tmp_path])
    finally:
        sys.setrecursionlimit(limit)
    assert [path.name for path in found] == ["a.png", "top.png"]


def test_a_run_does_not_inspect_its_own_pictures(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    run = tmp_path / "runs" / "screw"
    (run / "assets").mkdir(parents=True)
    (run / "assets" / "b.jpg").write_bytes(b"\xff\xd8\xff")
    (run / "run.json").write_text('{\n  "format": "zerodefect-run",\n  "version": 1}')
    assert [path.name for path in find_images([tmp_path])] == ["a.png"]
    with pytest.raises(ImageError, match="results of an inspection"):
        find_images([run])
    (run / "run.json").write_text("{}")  # somebody else's file of that name
    assert [path.name for path in find_images([tmp_path])] == ["a.png", "b.jpg"]
