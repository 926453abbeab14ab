"""``--config FILE``: options from a TOML file, by the names that they have on the command line.

What stands at the top is for every verb that has such an option, what stands under a verb's name
(``[inspect]``, ``[data.check]``) for that verb alone; the command line wins over both.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

_NOT_IN_FILES = {"config", "help", "version"}


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Make what a file says the defaults of the verb that is called.

    Raises:
        BadParameter: a file that cannot be read, or a name that no option has.
    """
    if path is None or context.resilient_parsing:
        return path
    content, root = _content(path), context.find_root().command
    verbs = set(getattr(root, "commands", {}))
    own = _options(context.command)
    section = _own_section(content, context)
    flat = {
        name: value
        for name, value in content.items()
        if not (name in verbs and isinstance(value, Mapping))
    }
    anyones = {name for command in _commands(root) for name in _options(command)}
    _check(path, flat, {*anyones, *verbs} if verbs else own)
    _check(path, section, own)
    given = {_plain(name): value for name, value in [*flat.items(), *section.items()]}
    chosen = {own[name].name: _value(own[name], given[name]) for name in own.keys() & given.keys()}
    context.default_map = {**(context.default_map or {}), **chosen}
    return path


def _content(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}") from None
    except ValueError as error:  # of TOML, or of UTF-8
        raise typer.BadParameter(f"{path}: this is no TOML ({error})") from None


def _own_section(content: Mapping[str, Any], context: typer.Context) -> Mapping[str, Any]:
    """What stands under the name of the verb, ``data.check`` for one of a group."""
    names: list[str] = []
    at: Any = context
    while at.parent is not None:
        names.insert(0, at.info_name)
        at = at.parent
    section: Any = content if names else {}
    for name in names:
        section = section.get(name, {}) if isinstance(section, Mapping) else {}
    return section if isinstance(section, Mapping) else {}


def _commands(command: Any) -> Iterator[Any]:
    """All verbs below a command, or itself."""
    inner = getattr(command, "commands", None)
    for each in inner.values() if inner else ():
        yield from _commands(each)
    if not inner:
        yield command


def _options(command: Any) -> dict[str, Any]:
    """Options of a verb by each of their long names, without the dashes."""
    found = {
        name.removeprefix("--"): option
        for option in command.params
        for name in option.opts
        if name.startswith("--")
    }
    return {name: option for name, option in found.items() if name not in _NOT_IN_FILES}


def _check(path: Path, section: Mapping[str, Any], known: Iterable[str]) -> None:
    for name in section:
        if _plain(name) not in known:
            near = difflib.get_close_matches(_plain(name), list(known), 1, cutoff=0.0)
            hint = f"; the nearest is {near[0]!r}" if near else ""
            raise typer.BadParameter(f"{path}: there is no option {name!r}{hint}")


def _plain(name: str) -> str:
    return name.replace("_", "-")


def _value(option: Any, value: Any) -> Any:
    """A value as if it had been typed; tables are NAME=VALUE entries."""
    if isinstance(value, Mapping):
        value = [f"{name}={_text(each)}" for name, each in value.items()]
    if option.is_flag and isinstance(value, bool):
        return value
    if option.multiple:
        return [_text(each) for each in (value if isinstance(value, list) else [value])]
    return ",".join(map(_text, value)) if isinstance(value, list) else _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
