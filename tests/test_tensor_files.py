"""Tensor files: the seal over everything in them, and weight files of others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from export3d.errors import DataError
from export3d.tensor_files import WHOLE, read_tensor_file, read_weights, sealed

HEADER = {"format": "f", "version": "1", "notes": "made up"}
ARRAYS = {"a": np.arange(6, dtype=np.float32)}


def read(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    return read_tensor_file(path, kind="k", format_name="f", version="1", error=DataError, remedy="Make it anew.")


def test_a_sealed_file_is_read_and_one_without_a_seal_too(tmp_path: Path) -> None:
    for header in (HEADER, sealed(HEADER, ARRAYS)):
        (tmp_path / "a").write_bytes(save(ARRAYS, header))
        assert read(tmp_path / "a")[0] == header


@pytest.mark.parametrize("old", [b"made up", WHOLE.encode(), b"notes", np.float32(5).tobytes()])
def test_any_other_byte_is_noticed_the_name_of_the_seal_included(tmp_path: Path, old: bytes) -> None:
    content = save(ARRAYS, sealed(HEADER, ARRAYS))
    assert content.count(old) == 1
    (tmp_path / "a").write_bytes(content.replace(old, bytes([old[0] ^ 1]) + old[1:]))
    with pytest.raises(DataError, match=r"the file is damaged\. Make it anew"):
        read(tmp_path / "a")


def test_a_pickle_is_refused_and_nobody_is_told_to_execute_it(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"\x80\x02cbuiltins\nprint\n(X\x02\x00\x00\x00hitR.")
    with pytest.raises(DataError) as caught:
        read_weights(tmp_path / "a.pth", "weights", DataError)
    assert "not weights that can be read safely" in str(caught.value) and "weights_only" not in str(caught.value)
