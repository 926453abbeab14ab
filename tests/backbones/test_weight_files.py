"""Files of weights: what is read of them, and what is refused."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from zerodefect.backbones.weight_files import WeightsError, read_state


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.safetensors", b"", "cannot be read as weights"),
        ("a.safetensors", b"no weights at all" * 10, "cannot be read as weights"),
        ("a.pt", b"\x80\x04garbage", "cannot be read as weights"),
        ("a.pt", None, "no such file"),
    ],
)
def test_damaged_files_name_file_reason_and_remedy(tmp_path, name, content, reason):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=reason) as error:
        read_state(path)
    assert str(path) in str(error.value)


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


def test_code_in_a_pickle_is_never_run(tmp_path, capsys):
    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(WeightsError, match="only safetensors and plain tensors"):
        read_state(tmp_path / "evil.pt")
    assert "code ran" not in capsys.readouterr().out


def test_a_torchscript_archive_is_refused_by_name(tmp_path):
    traced = torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2))
    torch.jit.save(traced, tmp_path / "jit.pt")
    with pytest.raises(WeightsError, match="TorchScript archive, which carries code"):
        read_state(tmp_path / "jit.pt")


def test_whole_numbers_in_a_file_keep_their_type(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"context_length": torch.tensor(77), "x": torch.ones(3)}, path)
    state = read_state(path, torch.bfloat16)
    assert state["context_length"].dtype == torch.int64
    assert state["x"].dtype == torch.bfloat16
