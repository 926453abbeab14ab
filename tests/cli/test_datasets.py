"""``zerodefect datasets``, and how output ends that nobody reads to its end."""

import json
import os
import subprocess
import sys

import pytest
from models import picture, write_tiny_weights
from typer.testing import CliRunner

from zerodefect.cli import app
from zerodefect.data import CATALOGUE
from zerodefect.images import encode_png


def run(*arguments):
    return CliRunner().invoke(app, ["datasets", *arguments])


def test_every_data_set_is_listed_with_its_terms():
    result = run()
    assert result.exit_code == 0
    for known in CATALOGUE:
        assert f"{known.name}: {known.title}, " in result.stdout
        assert f"licence: {known.licence}" in result.stdout
    assert "Nothing is downloaded" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100


@pytest.mark.parametrize("name", ["ksdd2", "KolektorSDD2"])
def test_one_data_set_shows_its_tree(name):
    result = run(name)
    assert result.exit_code == 0
    assert "train/10000.png, 10000_GT.png" in result.stdout
    assert "--layout ksdd2" in result.stdout
    assert "mvtec" not in result.stdout


def test_json_has_every_fact():
    facts = json.loads(run("--json").stdout)
    assert [entry["name"] for entry in facts] == [known.name for known in CATALOGUE]
    one = json.loads(run("visa", "--json").stdout)
    assert one in facts and "split_csv/1cls.csv" in one["tree"] and one["count"] == 12


def test_an_unknown_data_set_names_those_there_are():
    error = str(run("imagenet").exception)
    assert "imagenet" in error and "visa" in error and "data check" in error


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="pipes break differently there")
@pytest.mark.parametrize("reader", ["stdout", "stderr"])
def test_a_reader_that_went_away_ends_the_command_quietly(tmp_path, reader):
    (tmp_path / "parts").mkdir()
    for seed in range(3):
        (tmp_path / f"parts/{seed}.png").write_bytes(encode_png(picture(seed)))
    weights = write_tiny_weights(tmp_path)
    arguments = ["inspect", "parts", "-b", str(weights), "--json", "--batch-size", "1", "-o", "run"]
    read, write = os.pipe()
    os.close(read)
    other = "stderr" if reader == "stdout" else "stdout"
    ended = subprocess.run(
        [sys.executable, "-m", "zerodefect", *arguments],
        cwd=tmp_path,
        check=False,
        **{reader: write, other: subprocess.PIPE},
    )
    os.close(write)
    assert ended.returncode == 141
    if reader == "stdout":  # no traceback; a remark about the missing --object is all
        assert b"Error" not in ended.stderr and b"Traceback" not in ended.stderr
        assert len((tmp_path / "run/results.jsonl").read_text().splitlines()) == 1
