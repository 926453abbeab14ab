"""Shared by the tests of the command line."""

import sys

import pytest

from zerodefect import cli


@pytest.fixture
def run(monkeypatch, capsys):
    """The command as the console script runs it: exit code, stdout, stderr."""

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["zerodefect", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as ended:
            code = ended.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command
