"""`zerodefect methods`: every fact of the registry, readable on 80 columns."""

from __future__ import annotations

import dataclasses
import json
import sys

import pytest
from typer.testing import CliRunner

from zerodefect import cli
from zerodefect.cli import methods
from zerodefect.detector.facts import Figure, MethodInfo
from zerodefect.methods import get, names

KEYS = {"name", "title", "school", "knows_from", "paper", "code_licence", "parity", "figures"}


def shown(*arguments: str) -> str:
    result = CliRunner().invoke(cli.app, ["methods", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def unwrapped(text: str) -> str:
    return " ".join(text.split())


def block(text: str, name: str) -> str:
    return next(part for part in text.split("\n\n") if part.startswith(f"{name}: "))


def test_the_list_says_everything_of_every_method():
    text = shown()
    assert all(len(line) <= 80 for line in text.splitlines())
    for name in names():
        info, said = get(name).info, unwrapped(block(text, name))
        for fact in (info.title, info.school, info.paper, info.code_licence, info.parity):
            assert unwrapped(fact) in said, (name, fact)
        assert f"learns from {', '.join(info.knows_from)}" in said


@pytest.mark.parametrize("name", names())
def test_one_method_with_all_its_figures_options_and_training(name):
    kind, text = get(name), shown(name)
    assert all(len(line) <= 80 for line in text.splitlines())
    said = unwrapped(text)
    for figure in kind.info.figures:
        assert f"{figure.metric} {figure.value:.1f}" in said
        assert f"{figure.data}, {figure.setting}:" in said
        assert f"source: {unwrapped(figure.source)}" in said
    for option in dataclasses.fields(kind.Config):
        assert f"{option.name} = " in said
    assert ("epochs = " in said) == (kind.recipe is not None)


def test_completions_of_ours_are_marked_and_only_those():
    text = shown()
    marked = {name for name in names() if "a completion of ours" in block(text, name)}
    assert marked == {name for name in names() if get(name).info.completion}
    assert "afr_clip" in marked


def test_what_is_experimental_says_what_is_known_of_it():
    text = shown()
    marked = {name for name in names() if "\n  experimental " in block(text, name)}
    assert marked == {name for name in names() if get(name).info.experimental}
    assert marked == {"iad_clip", "mgfd_clip", "missingclip"}
    for name in marked:
        assert unwrapped(get(name).info.experimental) in unwrapped(block(text, name))
        assert get(name).info.completion


def test_as_json():
    listed = json.loads(shown("--json"))
    assert [entry["name"] for entry in listed] == names()
    assert all(set(entry) >= KEYS for entry in listed)
    one = json.loads(shown("winclip", "--json"))
    assert one["options"]["scales"] == [2, 3] and one["recipe"] is None
    assert one["figures"] == next(e for e in listed if e["name"] == "winclip")["figures"]


def test_an_unknown_name_is_answered_with_a_similar_one(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["zerodefect", "methods", "winclp"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert "unknown method 'winclp'. Did you mean 'winclip'?" in error
    assert "Traceback" not in error


def test_each_source_stands_below_its_own_figures():
    info = MethodInfo(
        name="x",
        title="X",
        school="prompt",
        knows_from=("words",),
        paper="p",
        code_licence="MIT",
        parity="-",
        figures=(
            Figure("A", "0-shot", "image AUROC", 90.0, "first"),
            Figure("A", "1-shot", "image AUROC", 91.0, "second"),
            Figure("B", "0-shot", "image AUROC", 92.0, "second"),
            Figure("C", "0-shot", "image AUROC", 93.0, "third"),
        ),
    )
    said = [line.strip() for line in methods._summary(info)][-6:]
    assert said == [
        "published       A, 0-shot: image AUROC 90.0",
        "source: first",
        "A, 1-shot: image AUROC 91.0",
        "B, 0-shot: image AUROC 92.0",
        "source: second",
        "1 more data set: zerodefect methods x",
    ]
