"""``--config FILE``: options from a TOML file, and what is said of one that is wrong."""

import json

import pytest
from models import picture, write_tiny_weights
from typer.testing import CliRunner

from zerodefect.cli import app
from zerodefect.images import encode_png

GIVEN = {
    "object": "screw", "reference": ["good"], "tile": 64, "overlap": 0.5, "keep-aspect": True,
    "set": {"temperature": 0.05, "scales": [2, 3]}, "precision": "auto",
}  # fmt: skip


@pytest.fixture
def parsed(tmp_path, monkeypatch):
    """What the groups of ``calibrate`` hold after a command line with a file of options."""
    from zerodefect.cli import calibrate

    def command(text, *arguments, verb="calibrate"):
        (tmp_path / "line.toml").write_text(text, encoding="utf-8")
        built = {}

        def loaded(product, detector, pictures, files, *rest):
            built.update({**product.keywords(), **detector.keywords(), **pictures.keywords()})
            raise ValueError("far enough")

        monkeypatch.setattr(calibrate, "load_inspector", loaded)
        path = str(tmp_path / "line.toml")
        result = CliRunner().invoke(app, [verb, "parts", "--config", path, *map(str, arguments)])
        return built, result

    return command


def as_toml(values):
    plain = {name: value for name, value in values.items() if not isinstance(value, dict)}
    lines = [f"{name} = {json.dumps(value)}" for name, value in plain.items()]
    for name in values.keys() - plain.keys():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(one)}" for key, one in values[name].items())]
    return "\n".join(lines)


def test_options_are_those_of_the_command_line(parsed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("parts", "good"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "0.png").write_bytes(encode_png(picture(0)))
    from_file, _ = parsed(as_toml(GIVEN))
    typed = ["--object", "screw", "--reference", "good", "--tile", 64, "--overlap", 0.5]
    typed += ["--keep-aspect", "--set", "temperature=0.05", "--set", "scales=[2,3]"]
    from_line, _ = parsed("", *typed, "--precision", "auto")
    assert from_file == from_line
    assert from_file["scales"] == (2, 3) and from_file["keep_aspect"] is True

    section = "object = 'bolt'\ntile = 32\n[calibrate]\nobject = 'screw'\n[inspect]\nmaps = true"
    built, _ = parsed(section)
    assert (built["object"], built["tile"]) == ("screw", 32)  # the verb's own section wins
    built, _ = parsed(section, "--object", "nut", "--tile", 128)
    assert (built["object"], built["tile"]) == ("nut", 128)  # and the command line over all


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("objekt = 'screw'", "there is no option 'objekt'; the nearest is 'object'"),
        ("[calibrate]\nrefrence = 'good'", "no option 'refrence'; the nearest is 'reference'"),
        ("[calibrate]\nmaps = true", "there is no option 'maps'"),  # of inspect alone
        ("[calibrat]\nobject = 'screw'", "no option 'calibrat'; the nearest is 'calibrate'"),
        ("tile = 'large'", "Invalid value for '--tile'"),
        ("overlap = 0.9", "Invalid value for '--overlap'"),
        ("object = ", "this is no TOML"),
    ],
)
def test_what_is_wrong_is_named(parsed, text, said):
    built, result = parsed(text)
    assert result.exit_code == 2 and not built
    assert said in " ".join(result.output.split())


def test_a_file_for_several_verbs_may_name_options_of_others(parsed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "0.png").write_bytes(encode_png(picture(0)))
    built, _ = parsed("object = 'screw'\nmaps = true\nk-shot = [0, 1]")  # inspect's, evaluate's
    assert built["object"] == "screw"


def test_a_missing_file_is_named(tmp_path):
    result = CliRunner().invoke(app, ["inspect", "x", "--config", str(tmp_path / "no.toml")])
    assert result.exit_code == 2 and "No such file" in result.output


def test_a_run_takes_its_options_from_a_file(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "0.png").write_bytes(encode_png(picture(0)))
    weights = write_tiny_weights(tmp_path)
    text = f"backbone = {json.dumps(str(weights))}\nobject = 'screw'\n[inspect]\nreport = false"
    (tmp_path / "line.toml").write_text(text + "\noutput = 'run'\nmethod = 'winclip'\n")
    code, out, _ = run("inspect", "parts", "--config", "line.toml")
    assert code == 0 and "report:" not in out and not (tmp_path / "run/report.html").exists()
    assert (tmp_path / "run/results.jsonl").exists()
