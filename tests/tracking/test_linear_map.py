"""Tests of the files of the tracker's maps."""

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from export3d.errors import CheckpointError
from export3d.tensor_files import sealed
from export3d.tracking.gaze import GazeMap
from export3d.tracking.head_fit import HeadFit
from export3d.tracking.linear_map import StoredMap
from export3d.tracking.mouth import MouthMap

KINDS = pytest.mark.parametrize("kind", [GazeMap, MouthMap, HeadFit])


@KINDS
def test_a_saved_map_comes_back_as_its_own_kind(kind: type[StoredMap], tmp_path):
    bundled = kind.load()
    bundled.save(tmp_path / "m.safetensors")
    found = kind.load(tmp_path / "m.safetensors")
    assert type(found) is kind
    assert all(np.array_equal(getattr(found, name), getattr(bundled, name)) for name in kind.SHAPES)


def test_a_map_of_another_kind_is_refused(tmp_path):
    GazeMap.load().save(tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match="expected format 'export3d-mouth', version 1; got 'export3d-gaze'"):
        MouthMap.load(tmp_path / "m.safetensors")


@KINDS
def test_bad_files_are_refused(kind: type[StoredMap], tmp_path):
    path = tmp_path / "m.safetensors"
    with pytest.raises(CheckpointError, match=f"no such {kind.NAME} file") as caught:
        kind.load(path)
    assert f"run: export3d {kind.COMMAND}" in str(caught.value)
    path.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        kind.load(path)
    kind.load().save(path)
    arrays = load_file(path)
    with safe_open(path, framework="numpy") as opened:
        metadata = dict(opened.metadata())
    save_file(arrays, path, {**metadata, "version": "9"})
    wanted = f"expected format 'export3d-{kind.NAME}', version {kind.VERSION}; got 'export3d-{kind.NAME}', version 9"
    with pytest.raises(CheckpointError, match=wanted):
        kind.load(path)
    arrays["bias"] = arrays["bias"][:1]
    save_file(arrays, path, metadata)
    with pytest.raises(CheckpointError, match="do not match the stored checksum"):
        kind.load(path)
    save_file(arrays, path, sealed(metadata, arrays))
    with pytest.raises(CheckpointError, match="bias must be finite float32 of shape"):
        kind.load(path)
