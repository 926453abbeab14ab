"""The promise to callers: names, signatures and fields that do not change by accident.

A failing test here means that users' programs would break: change the list only together with the
changelog.
"""

import dataclasses
import inspect
import subprocess
import sys

import pytest

import zerodefect
from zerodefect import Detector, Inspector, Policy, load

NAMES = [
    "CalibrationError",
    "Detector",
    "Explainer",
    "Failure",
    "ImageError",
    "Inspection",
    "Inspector",
    "Picture",
    "Policy",
    "PolicyMismatch",
    "Prediction",
    "ProductError",
    "Region",
    "Results",
    "Tiling",
    "Viewing",
    "Vocabulary",
    "WeightsError",
    "__version__",
    "evaluate",
    "find_images",
    "fit",
    "load",
    "methods",
    "open_image",
]

SIGNATURES = [
    (
        load,
        "(method: 'str | Path | None' = None, *, object: 'str | None' = None, "
        "references: 'Source | Iterable[Source] | None' = None, "
        "vocabulary: 'Vocabulary | str | Path | None' = None, "
        "policy: 'Policy | str | Path | None' = None, tile: 'int | None' = None, "
        "overlap: 'float' = 0.25, keep_aspect: 'bool' = False, view: 'str | None' = None, "
        "roi: 'Source | AreaWords | None' = None, ignore: 'Source | None' = None, "
        "bit_depth: 'int | None' = None, memory_budget: 'int | None' = None, "
        "refine: 'str | Path | None' = None, rules: 'str | Iterable[str]' = (), "
        "components: 'str | Iterable[str]' = (), clusters: 'str | Path | None' = None, "
        "**loading: 'Any') -> 'Inspector'",
    ),
    (
        Inspector.inspect,
        "(self, source: 'Source | Any', object: 'str | None' = None) -> 'Inspection'",
    ),
    (
        Inspector.inspect_many,
        "(self, sources: 'Source | Iterable[Any]', object: 'str | None' = None, *, "
        "batch_size: 'int' = 8, keep_maps: 'bool' = True) -> 'Iterator[Inspection | Failure]'",
    ),
    (
        Inspector.calibrate,
        "(self, good: 'Source | Iterable[Source] | Mapping[str, Iterable[Source]]', *, "
        "object: 'str | None' = None, part_by: 'str | None' = None, "
        "false_alarms: 'float | None' = None, review_rate: 'float | None' = None, "
        "confidence: 'float | None' = None, leave_one_out: 'bool' = False, "
        "allow: 'Iterable[str]' = (), batch_size: 'int' = 8, "
        "on_scored: 'Callable[[int], None]' = <function>, "
        "on_failure: 'Callable[[Failure], None] | None' = None) -> 'Policy'",
    ),
    (Inspector.where, "(self, word: 'str', source: 'Source | Any') -> 'np.ndarray'"),
    (Inspector.remember, "(self, references: 'Source | Iterable[Source]') -> 'int'"),
    (
        Inspector.describe,
        "(self, object: 'str', vocabulary: 'Vocabulary | None' = None) -> 'None'",
    ),
    (Inspector.forget, "(self) -> 'None'"),
    (Inspector.save, "(self, path: 'str | Path', pictures: 'bool' = True) -> 'None'"),
    (
        Inspector.relearn,
        "(self, references: 'Source | Iterable[Source] | None' = None, "
        "good: 'Source | Iterable[Source] | None' = None, **calibrating: 'Any') -> 'Policy'",
    ),
    (Inspector.active_policy, "(self, object: 'str | None' = None) -> 'Policy'"),
    (Detector.empty, "(self) -> 'Knowledge'"),
    (
        Detector.describe,
        "(self, knowledge: 'Knowledge', product: 'Product') -> 'Knowledge'",
    ),
    (
        Detector.remember,
        "(self, knowledge: 'Knowledge', batches: 'Iterable[Any]', "
        "pictures: 'Iterable[Tensor] | None' = None) -> 'Knowledge'",
    ),
    (Detector.settle, "(self, knowledge: 'Knowledge') -> 'Knowledge'"),
    (
        Detector.forward,
        "(self, inputs: 'Inputs', knowledge: 'Knowledge | None' = None) -> 'Prediction'",
    ),
    (Detector.encode, "(self, inputs: 'Any') -> 'Any'"),
    (
        Detector.predict,
        "(self, encoded: 'Any', knowledge: 'Knowledge', left_out: 'Tensor | None' = None) "
        "-> 'Prediction'",
    ),
    (
        Detector.score_set,
        "(self, encoded: 'Iterable[Any]', knowledge: 'Knowledge') -> 'Iterator[Prediction]'",
    ),
]

FIELDS = {
    "Inspection": "image object width height verdict calibrated score p_value regions "
    "explanation notes map answer reason allowed counts transductive area words picture "
    "colour_range explained conversation rules components",
    "Region": "box mask polygons area area_percent score p_value kind kind_score allowed",
    "Failure": "image reason remedy",
    "Prediction": "score map type_map answer embedding",
    "Picture": "path pixels notes cloud colourless",
    "Vocabulary": "kinds",
}

POLICY_FIELDS = (
    "format version method fingerprint object bit_depth form guaranteed false_alarms review_rate "
    "confidence scores map_maxima limits region_limit colour_range frames made_with "
    "allowances parts "
    "created zerodefect notes"
)


def signature_text(function) -> str:
    """A signature as one string; a default that is a function has no lasting text of its own."""

    class Plain:
        def __repr__(self):
            return "<function>"

    signature = inspect.signature(function)
    parameters = [
        p.replace(default=Plain()) if inspect.isfunction(p.default) else p
        for p in signature.parameters.values()
    ]
    return str(signature.replace(parameters=parameters))


def test_public_names():
    assert zerodefect.__all__ == NAMES
    for name in NAMES:
        assert getattr(zerodefect, name) is not None
    assert dir(zerodefect) == sorted(NAMES)


def test_methods_are_a_package_and_a_call():
    found = zerodefect.methods()
    assert list(found) == zerodefect.methods.names()
    assert found["winclip"] is zerodefect.methods.get("winclip").info


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'detektor'"):
        _ = zerodefect.detektor


@pytest.mark.parametrize(
    ("function", "text"), SIGNATURES, ids=lambda v: getattr(v, "__qualname__", "")
)
def test_signatures(function, text):
    assert signature_text(function) == text


@pytest.mark.parametrize(("name", "fields"), FIELDS.items(), ids=FIELDS)
def test_fields_of_the_records(name, fields):
    found = dataclasses.fields(getattr(zerodefect, name))
    assert [field.name for field in found] == fields.split()


def test_fields_of_the_policy():
    assert list(Policy.model_fields) == POLICY_FIELDS.split()


def test_errors_are_of_the_types_that_callers_catch():
    assert issubclass(zerodefect.ImageError, ValueError)
    assert issubclass(zerodefect.PolicyMismatch, ValueError)
    assert issubclass(zerodefect.CalibrationError, ValueError)
    assert issubclass(zerodefect.WeightsError, RuntimeError)


@pytest.mark.parametrize(("listening", "heard"), [("", ""), ("logging.basicConfig()", "dark")])
def test_the_logger_is_silent_unless_a_program_listens(listening, heard):
    code = (
        f"import logging, zerodefect\n{listening}\nlogging.getLogger('zerodefect').warning('dark')"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert (heard in result.stderr) if heard else not result.stderr


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, zerodefect\n"
        "heavy = {'torch', 'numpy', 'PIL', 'scipy', 'open_clip', 'pydantic'} & set(sys.modules)\n"
        "print(sorted(heavy))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
