"""Files of rules, and those that come with the package.

A rule a line; what follows ``#`` is a remark. The presets are rules for the products of MVTec LOCO
AD (Bergmann et al., IJCV 2022): what a component looks like is told beside them.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from zerodefect.inspection.rules.rule_reader import parse_rule

_SUFFIX = ".rules"


def presets() -> list[str]:
    """Names of the rules that come with the package."""
    files = (one.name for one in _folder().iterdir())
    return sorted(name.removesuffix(_SUFFIX) for name in files if name.endswith(_SUFFIX))


def _folder() -> Any:
    return resources.files(__package__) / "rule_presets"


def read_rules(source: str | Path) -> list[str]:
    """The rules of a file, or of a preset by its name.

    Raises:
        ValueError: neither is there, the file holds no rule, or is no text.
        RuleError: a rule that is not understood.
    """
    if str(source) in presets() and not Path(source).exists():
        text = (_folder() / f"{source}{_SUFFIX}").read_text(encoding="utf-8")
    else:
        text = _read(Path(source))
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    found = [line for line in lines if line]
    if not found:
        raise ValueError(f"{source}: holds no rule. Write one a line, as in 'exactly 2 screws'")
    for line in found:
        parse_rule(line)
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be read ({error.strerror}). Give a file of rules, one a line, or one "
            f"of {', '.join(presets())}"
        ) from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: no text. Give a file of rules, one a line") from None
