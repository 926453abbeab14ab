"""From good pictures to an inspector with limits, in one step."""

import numpy as np
import pytest
from models import picture, tiny_backbone

from zerodefect.images import encode_png
from zerodefect.inspection.conformal import CalibrationError
from zerodefect.inspection.inspector import Inspector
from zerodefect.inspection.setting_up import ENOUGH_TO_SPLIT, set_up
from zerodefect.methods.winclip import WinCLIP


@pytest.fixture
def inspector():
    made = Inspector(WinCLIP(tiny_backbone()))
    made.describe("plate")
    return made


@pytest.fixture
def good(tmp_path):
    def folder(count):
        for seed in range(count):
            (tmp_path / f"{seed:02d}.png").write_bytes(encode_png(picture(seed, 40, 48)))
        return sorted(tmp_path.glob("*.png"))

    return folder


def test_a_few_are_all_references_each_left_out_in_turn(inspector, good):
    made = set_up(inspector, good(7))
    assert (len(made.references), made.apart, inspector.shots) == (7, (), 7)
    assert made.policy.form == "leave-one-out" and inspector.policy is made.policy


def test_many_are_split_so_that_the_rate_is_proven(inspector, good):
    files, counted = good(30), []
    made = set_up(inspector, files, on_scored=counted.append, false_alarms=0.1)
    names = [one.path for one in made.references]
    assert names == [str(files[place]) for place in (0, 3, 6, 10, 13, 16, 19, 23, 26, 29)]
    assert len(made.apart) == len(made.policy.scores) == 20
    assert not {str(file) for file in made.apart} & set(names)
    assert made.policy.form == "split" and made.policy.guaranteed
    assert made.policy.false_alarms == 0.1 and sum(counted) == 30


def test_copies_and_broken_files_do_not_count(inspector, good):
    files, failures = good(ENOUGH_TO_SPLIT), []
    files[1].write_bytes(files[0].read_bytes())  # 0 is a reference, 1 is not
    files[2].write_bytes(b"")
    files[-1].write_bytes(encode_png(np.zeros((40, 48, 3), np.uint8)))
    made = set_up(inspector, files, on_failure=failures.append)
    assert [failure.image for failure in failures] == [str(files[-1]), str(files[2])]
    assert (len(made.references), len(made.policy.scores)) == (7, 14)


def test_what_cannot_be_promised_is_refused(inspector, good):
    with pytest.raises(CalibrationError, match="cannot be guaranteed"):
        set_up(inspector, good(8), false_alarms=0.01)


def test_copies_of_one_picture_are_told(inspector, good):
    files = good(3)
    for file in files[1:]:
        file.write_bytes(files[0].read_bytes())
    with pytest.raises(CalibrationError, match="of 3 good pictures 1 can be used; copies"):
        set_up(inspector, files)
