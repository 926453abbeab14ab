import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zerodefect.files import StoreError, atomic_write
from zerodefect.reports.run_folder import RunBusy, RunMismatch, RunStore, image_key

MANIFEST = {"object": "screw", "settings": {"size": (240, 240)}, "policy": {"created": "now"}}


def ok(image, score=0.5):
    return {"image": image, "status": "ok", "score": score, "regions": []}


def failed(image):
    return {"image": image, "status": "failed", "reason": "broken", "remedy": "Copy it again."}


def key(image):
    return f"{image}|10|20"


def fill(folder, images):
    with RunStore(folder, MANIFEST) as store:
        for image in images:
            store.append(ok(image), key(image))


def images_in(store):
    return [record["image"] for record in store.records()]


def test_a_new_run_and_its_files(tmp_path):
    folder = tmp_path / "runs" / "one"
    fill(folder, ["a.png", "b.png"])
    manifest = json.loads((folder / "run.json").read_text())
    assert manifest["format"] == "zerodefect-run" and manifest["version"] == 1
    assert manifest["object"] == "screw" and manifest["created"] and manifest["zerodefect"]
    lines = (folder / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {**ok(image), "key": key(image)} for image in ("a.png", "b.png")
    ]


def test_continuing_remembers_what_is_done(tmp_path):
    fill(tmp_path, ["a.png", "b.png"])
    with RunStore(tmp_path, MANIFEST) as store:
        assert store.done() == {key("a.png"), key("b.png")}
        assert len(store) == 2
        store.append(ok("c.png"), key("c.png"))
        assert images_in(store) == ["a.png", "b.png", "c.png"]
    assert images_in(store) == ["a.png", "b.png", "c.png"]  # readable after closing, too
    with pytest.raises(ValueError, match="closed"):
        store.append(ok("d.png"), key("d.png"))


def test_the_last_record_of_an_image_counts_and_the_file_ends_up_without_doubles(tmp_path):
    with RunStore(tmp_path, MANIFEST) as store:
        store.append(failed("a.png"), key("a.png"))
        store.append(ok("b.png"), key("b.png"))
        assert store.done() == {key("b.png")}  # failed images are tried again
    with RunStore(tmp_path, MANIFEST) as store:
        assert store.done() == {key("b.png")}
        store.append(ok("a.png", 0.9), "a.png|11|21")
        assert [r["status"] for r in store.records()] == ["ok", "ok"]
        assert images_in(store) == ["a.png", "b.png"]
        assert store.done() == {"a.png|11|21", key("b.png")}
    assert images_in(store) == ["a.png", "b.png"]
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["image"] for line in lines] == ["a.png", "b.png"]


def test_a_changed_file_gets_another_key(tmp_path):
    path = tmp_path / "a.png"
    assert image_key(path) == f"{path}|missing"
    path.write_bytes(b"one")
    before = image_key(path)
    assert image_key(path) == before
    path.write_bytes(b"other")
    assert image_key(path) != before
    assert image_key("zero\0byte").endswith("|missing")


# Other settings, other folders


def test_other_settings_are_named(tmp_path):
    fill(tmp_path, ["a.png"])
    other = {**MANIFEST, "object": "nut", "settings": {"size": (128, 240), "new": True}}
    with pytest.raises(RunMismatch) as caught:
        RunStore(tmp_path, other)
    message = str(caught.value)
    assert 'object: "screw" then, "nut" now' in message
    assert "settings.size: [240, 240] then, [128, 240] now" in message
    assert "settings.new: null then, true now" in message
    assert "--output" in message and "--overwrite" in message
    fill(tmp_path, ["b.png"])  # the lock was given back, and nothing was lost
    with RunStore(tmp_path, MANIFEST) as store:
        assert images_in(store) == ["a.png", "b.png"]


def test_time_and_environment_are_no_difference(tmp_path):
    fill(tmp_path, ["a.png"])
    later = {**MANIFEST, "policy": {"created": "later"}, "environment": {"device": "cuda"}}
    with RunStore(tmp_path, later) as store:
        assert len(store) == 1


@pytest.mark.parametrize(
    ("now", "same"),
    [
        ([0.3, [0.5, 1]], True),
        ([0.1 + 0.2, [0.5000001, 1]], True),  # rounding of another thread count
        ([0.3, [0.501, 1]], False),
        ([0.3, [0.5, 2]], False),
        ([0.3, [0.5]], False),
        ([0.3, "0.5"], False),
        (None, False),
    ],
)
def test_rounding_is_no_difference(tmp_path, now, same):
    with RunStore(tmp_path, {"value": [0.3, [0.5, 1]], "seed": 10_000_000}):
        pass
    if same:
        with RunStore(tmp_path, {"value": now, "seed": 10_000_000}):
            pass
    else:
        with pytest.raises(RunMismatch, match="value"):
            RunStore(tmp_path, {"value": now, "seed": 10_000_000})
    with pytest.raises(RunMismatch, match="seed"):
        RunStore(tmp_path, {"value": [0.3, [0.5, 1]], "seed": 10_000_001})


def test_overwriting_throws_the_results_away_and_nothing_else(tmp_path):
    fill(tmp_path, ["a.png"])
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "a.tiff").write_bytes(b"map")
    (tmp_path / "results.csv").write_text("would speak for the new run")
    (tmp_path / "mine.txt").write_text("keep")
    with RunStore(tmp_path, {"object": "nut"}, overwrite=True) as store:
        assert len(store) == 0 and store.done() == set()
        assert store.manifest["object"] == "nut"
    assert not (tmp_path / "maps").exists() and not (tmp_path / "results.csv").exists()
    assert (tmp_path / "mine.txt").read_text() == "keep"


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_not_ours_is_left_alone(tmp_path, overwrite):
    (tmp_path / "run.json").write_text('{"format": "other"}')
    (tmp_path / "maps").mkdir()
    with pytest.raises(StoreError, match="not the manifest"):
        RunStore(tmp_path, MANIFEST, overwrite=overwrite)
    (tmp_path / "run.json").unlink()
    (tmp_path / "results.jsonl").write_text("precious")
    with pytest.raises(StoreError, match=r"without its run\.json"):
        RunStore(tmp_path, MANIFEST, overwrite=overwrite)
    assert (tmp_path / "results.jsonl").read_text() == "precious"
    assert (tmp_path / "maps").exists()


def test_a_damaged_manifest_says_so_and_can_be_overwritten(tmp_path):
    fill(tmp_path, ["a.png"])
    (tmp_path / "run.json").write_text('{"format": "zero')
    with pytest.raises(StoreError, match=r"not valid JSON.*--overwrite"):
        RunStore(tmp_path, MANIFEST)
    with RunStore(tmp_path, MANIFEST, overwrite=True) as store:
        assert len(store) == 0


def test_a_run_of_a_newer_version_is_refused(tmp_path):
    fill(tmp_path, ["a.png"])
    manifest = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**manifest, "version": 2}))
    with pytest.raises(StoreError, match=r"run version 2.*Update"):
        RunStore(tmp_path, MANIFEST)


# Power cuts and kills

IMAGES = ["a.png", "ü\udcff.png", "c.png"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    fill(folder, IMAGES)
    return (folder / "run.json").read_bytes(), (folder / "results.jsonl").read_bytes()


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_line_torn_at_any_byte_is_repeated(tmp_path_factory, whole, data):
    manifest, results = whole
    cut = data.draw(st.integers(0, len(results)))
    junk = data.draw(st.sampled_from([b"", b"\0" * 7, b"\0\n", b"{}\n", b"{\xff", b"null\n"]))
    folder = tmp_path_factory.mktemp("torn")
    (folder / "run.json").write_bytes(manifest)
    (folder / "results.jsonl").write_bytes(results[:cut] + junk)
    complete = IMAGES[: results[:cut].count(b"\n")]
    with RunStore(folder, MANIFEST) as store:
        assert store.done() == {key(image) for image in complete}
        assert images_in(store) == complete
        for image in IMAGES[len(complete) :]:
            store.append(ok(image), key(image))
        assert images_in(store) == IMAGES
    assert (folder / "results.jsonl").read_bytes() == results


def test_every_byte_position(tmp_path, whole):
    manifest, results = whole
    (tmp_path / "run.json").write_bytes(manifest)
    for cut in range(len(results)):
        (tmp_path / "results.jsonl").write_bytes(results[:cut])
        with RunStore(tmp_path, MANIFEST) as store:
            assert images_in(store) == IMAGES[: results[:cut].count(b"\n")]


@given(st.binary(max_size=40))
@example(b"\0" * 40)
@example(b'{"image": 1, "status": "ok", "key": "k"}')
@settings(max_examples=60, deadline=None)
def test_damage_in_the_middle_costs_that_line_only(tmp_path_factory, whole, junk):
    manifest, results = whole
    lines = results.splitlines(keepends=True)
    folder = tmp_path_factory.mktemp("middle")
    (folder / "run.json").write_bytes(manifest)
    (folder / "results.jsonl").write_bytes(lines[0] + junk + b"\n" + lines[2])
    with RunStore(folder, MANIFEST) as store:
        assert images_in(store) == [IMAGES[0], IMAGES[2]]
        store.append(ok(IMAGES[1]), key(IMAGES[1]))
    assert (folder / "results.jsonl").read_bytes() == lines[0] + lines[2] + lines[1]


WORKER = """
import sys, time
from zerodefect.reports.run_folder import RunStore
folder, total, pause = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
with RunStore(folder, {"object": "screw"}) as store:
    print("open", flush=True)
    done = store.done()
    for i in range(total):
        if f"k{i}" not in done:
            record = {"image": f"{i}.png", "status": "ok", "score": i, "text": "x" * 3000}
            store.append(record, f"k{i}")
            time.sleep(pause)
"""


def worker(folder, total, pause):
    command = [sys.executable, "-c", textwrap.dedent(WORKER), str(folder), str(total), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.killing
def test_killed_in_mid_run_and_started_again(tmp_path):
    results, total = tmp_path / "results.jsonl", 400
    for kills in range(1, 4):
        process = worker(tmp_path, total, 0.002)
        try:
            assert process.stdout.readline() == "open\n"
            limit = time.monotonic() + 60
            while results.read_bytes().count(b"\n") < 60 * kills and time.monotonic() < limit:
                time.sleep(0.005)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        written = results.read_bytes().count(b"\n")
        assert 60 * kills <= written < total
        if hasattr(signal, "SIGKILL"):
            assert process.returncode == -signal.SIGKILL
    process = worker(tmp_path, total, 0)
    process.communicate()
    assert process.returncode == 0
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert sorted(line["score"] for line in lines) == list(range(total))
    with RunStore(tmp_path, {"object": "screw"}) as store:
        assert sorted(r["score"] for r in store.records()) == list(range(total))


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path):
    process = worker(tmp_path, 10_000, 0.01)
    try:
        assert process.stdout.readline() == "open\n"
        with pytest.raises(RunBusy, match="another process"):
            RunStore(tmp_path, {"object": "screw"})
        with pytest.raises(RunBusy):
            RunStore(tmp_path, {"object": "screw"}, overwrite=True)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    with RunStore(tmp_path, {"object": "screw"}) as store:  # the system let go of the lock
        store.append(ok("z.png"), "z")


# Full disks


def test_a_full_disk_names_file_reason_and_remedy_and_keeps_the_rest(tmp_path, monkeypatch):
    real = os.write
    room = 400

    def limited(descriptor, data):
        nonlocal room
        if room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real(descriptor, bytes(data[: min(room, 50)]))  # in small pieces, too
        room -= written
        return written

    monkeypatch.setattr("zerodefect.reports.run_folder.os.write", limited)
    store = RunStore(tmp_path, MANIFEST)
    with pytest.raises(StoreError, match=r"results.jsonl: .*No space left.*Free some space"), store:
        for i in range(100):
            store.append(ok(f"{i}.png"), key(f"{i}.png"))
    data = store.results_path.read_bytes()
    assert data.endswith(b"\n") and data.count(b"\n") >= 3
    monkeypatch.undo()
    with RunStore(tmp_path, MANIFEST) as store:
        count = len(store)
        assert count == data.count(b"\n")
        store.append(ok("next.png"), key("next.png"))
        assert len(images_in(store)) == count + 1


def test_when_even_cutting_fails_the_next_start_cuts(tmp_path, monkeypatch):
    fill(tmp_path, ["a.png"])
    store = RunStore(tmp_path, MANIFEST)
    real = os.write

    def half(descriptor, data):
        if len(data) < 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, bytes(data[: len(data) // 2]))

    def refuse(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("zerodefect.reports.run_folder.os.write", half)
    monkeypatch.setattr("zerodefect.reports.run_folder.os.ftruncate", refuse)
    with pytest.raises(StoreError, match="No space left"):
        store.append(ok("b.png"), key("b.png"))
    monkeypatch.undo()
    with pytest.raises(ValueError, match="closed"):
        store.append(ok("c.png"), key("c.png"))
    store.close()
    assert not store.results_path.read_bytes().endswith(b"\n")
    with RunStore(tmp_path, MANIFEST) as store:
        assert images_in(store) == ["a.png"]


LIMITED = """
import resource, signal, sys
from zerodefect.files import StoreError
from zerodefect.reports.run_folder import RunStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    with RunStore(sys.argv[1], {"object": "screw"}) as store:
        for i in range(1000):
            store.append({"image": f"{i}.png", "status": "ok", "score": i}, f"k{i}")
except StoreError as error:
    print(error)
    sys.exit(7)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are a Unix thing")
def test_the_system_itself_refuses_in_mid_line(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(LIMITED), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 7, result.stderr
    assert "results.jsonl" in result.stdout and "File too large" in result.stdout
    lines = (tmp_path / "results.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) > 10
    assert [json.loads(line)["score"] for line in lines] == list(range(len(lines)))
    assert all(line.endswith(b"\n") for line in lines)


def test_a_folder_that_cannot_be_made_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        RunStore(tmp_path / "file" / "run", MANIFEST)


def test_a_record_that_is_not_strict_json_leaves_no_trace(tmp_path):
    with RunStore(tmp_path, MANIFEST) as store:
        with pytest.raises(ValueError, match="JSON"):
            store.append(ok("a.png", float("nan")), key("a.png"))
        store.append(ok("b.png"), key("b.png"))
        assert images_in(store) == ["b.png"]


def test_records_may_be_read_while_others_are_added(tmp_path):
    with RunStore(tmp_path, MANIFEST) as store:
        store.append(ok("a.png"), key("a.png"))
        reader = store.records()
        assert next(reader)["image"] == "a.png"
        store.append(ok("b.png"), key("b.png"))
        assert list(reader) == []
        assert images_in(store) == ["a.png", "b.png"]


# Single files


def test_atomic_write_shows_all_or_nothing(tmp_path):
    path = tmp_path / "deep" / "file.bin"
    with atomic_write(path) as file:
        file.write(b"one")
        assert not path.exists()
    with pytest.raises(KeyError), atomic_write(path) as file:
        file.write(b"two")
        raise KeyError
    assert path.read_bytes() == b"one"
    assert list(Path(tmp_path, "deep").iterdir()) == [path]


def test_atomic_write_on_a_full_disk(tmp_path):
    def write():
        with atomic_write(tmp_path / "map.tiff"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StoreError, match=r"map.tiff: .*No space left.*Free some space"):
        write()
    assert list(tmp_path.iterdir()) == []
