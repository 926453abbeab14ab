"""Methods of other packages join by entry points."""

from __future__ import annotations

import subprocess
import sys

PLUGIN = """
from six_examples import Mutual
from zerodefect.detector.registry import register
register(Mutual.info)(Mutual)
"""

MAIN = """
import logging, sys
logging.basicConfig(format="%(message)s")
from zerodefect.methods import names
print(names())
"""


def test_a_package_brings_a_method_and_a_broken_one_costs_itself_alone(tmp_path):
    (tmp_path / "plugin_good.py").write_text(PLUGIN)
    (tmp_path / "plugin_bad.py").write_text("raise OSError('no weights here')")
    facts = tmp_path / "plugins-1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: plugins\nVersion: 1\n")
    (facts / "entry_points.txt").write_text(
        "[zerodefect.methods]\nbad = plugin_bad\ngood = plugin_good\n"
    )
    paths = [str(tmp_path), *sys.path]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:] = {paths!r}\n{MAIN}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "'mutual'" in done.stdout
    assert "'winclip'" in done.stdout
    assert "methods of plugin_bad are left out: OSError: no weights here" in done.stderr
