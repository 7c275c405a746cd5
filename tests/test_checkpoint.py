"""checkpoint.py: strict, atomic, checksummed model files with versions and named migrations."""

from __future__ import annotations

import json
import os
import stat
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from export3d import checkpoint
from export3d.checkpoint import load_strictly, read_checkpoint, write_checkpoint
from export3d.errors import CheckpointError, OutputError
from export3d.tensor_files import arrays_digest

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.count": torch.tensor(7), "b": torch.ones(4).half()}


def _write(path: Path, **changes: Any) -> Path:
    settings: dict[str, Any] = {"kind": "export3d", "config": {"hidden": 8}, **changes}
    write_checkpoint(path, settings.pop("tensors", TENSORS), **settings)
    return path


def _as_version_1(path: Path) -> Path:
    """The first versions sealed the tensors alone."""
    return _with_header(path, version="1", sha256=arrays_digest(TENSORS))


def _with_header(path: Path, **changes: str | None) -> Path:
    """Rewrite the header of a checkpoint, leaving the tensors as they are."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    for name, value in changes.items():
        if value is None:
            header["__metadata__"].pop(name)
        else:
            header["__metadata__"][name] = value
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    return path


def test_a_checkpoint_gives_back_tensors_config_and_facts(tmp_path: Path) -> None:
    path = _write(tmp_path / "m.safetensors", extra={"steps": 5})
    stored = read_checkpoint(path, kind="export3d")
    assert stored.config == {"hidden": 8} and stored.extra == {"steps": 5} and stored.kind == "export3d"
    assert set(stored.tensors) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert torch.equal(stored.tensors[name], tensor) and stored.tensors[name].dtype == tensor.dtype


def test_the_digest_is_returned_stored_and_depends_on_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    digest = write_checkpoint(path, TENSORS, kind="x", config={})
    assert (
        read_checkpoint(path, kind="x").sha256
        == digest
        != write_checkpoint(path, TENSORS, kind="x", config={"near": 0.1})
    )
    digest = arrays_digest(TENSORS)
    changed = {**TENSORS, "a.count": torch.tensor(8)}
    renamed = {("c" if n == "b" else n): t for n, t in TENSORS.items()}
    reshaped = {**TENSORS, "a.weight": TENSORS["a.weight"].reshape(3, 2)}
    assert len({digest, *(arrays_digest(t) for t in (changed, renamed, reshaped))}) == 4


def test_the_digest_ignores_the_order_of_tensors_and_their_strides() -> None:
    turned = {n: TENSORS[n] for n in reversed(TENSORS)}
    turned["a.weight"] = TENSORS["a.weight"].T.contiguous().T
    assert arrays_digest(turned) == arrays_digest(TENSORS)


def test_writing_twice_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    _write(tmp_path / "m.safetensors")
    _write(tmp_path / "m.safetensors", config={"hidden": 9})
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]
    assert read_checkpoint(tmp_path / "m.safetensors", kind="export3d").config == {"hidden": 9}


def test_a_model_file_has_the_permissions_that_the_umask_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_checkpoint(tmp_path / "m.safetensors", {"a": torch.zeros(1)}, kind="lebs", config={})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "m.safetensors").stat().st_mode) == 0o640


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path / "m.safetensors")

    def disk_full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OutputError, match=r"cannot be written .*No space left on device.*Free some disk space"):
        _write(path, config={"hidden": 9})
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]
    assert read_checkpoint(path, kind="export3d").config == {"hidden": 8}


def test_a_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"gone/m\.safetensors: cannot be written"):
        _write(tmp_path / "gone" / "m.safetensors")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"m\.safetensors: no such checkpoint file"):
        read_checkpoint(tmp_path / "m.safetensors", kind="export3d")


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 100])
def test_a_file_of_another_kind_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        read_checkpoint(tmp_path / "m.safetensors", kind="export3d")


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = _write(tmp_path / "m.safetensors")
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        read_checkpoint(path, kind="export3d")


def test_one_flipped_bit_is_found_by_the_checksum(tmp_path: Path) -> None:
    path = _write(tmp_path / "m.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match=r"do not match the stored checksum; the file is damaged\. Copy it again"):
        read_checkpoint(path, kind="export3d")


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "m.safetensors", {"a": torch.tensor([1.0, float("nan")])}, kind="export3d", config={})
    with pytest.raises(CheckpointError, match="'a' holds NaN or infinity"):
        read_checkpoint(tmp_path / "m.safetensors", kind="export3d")


def test_a_safetensors_file_from_elsewhere_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "m.safetensors")
    with pytest.raises(
        CheckpointError, match=r"expected format 'export3d-checkpoint', version 1 or 2 or 3 or 4; got 'none'"
    ):
        read_checkpoint(tmp_path / "m.safetensors", kind="export3d")


def test_a_newer_version_says_which_and_what_to_do(tmp_path: Path) -> None:
    path = _with_header(_write(tmp_path / "m.safetensors"), version="5")
    with pytest.raises(
        CheckpointError, match=r"version 1 or 2 or 3 or 4; got 'export3d-checkpoint', version 5\. Upgrade export3d"
    ):
        read_checkpoint(path, kind="export3d")


@pytest.mark.parametrize(
    "change",
    [{"version": None}, {"version": "one"}, {"kind": None}, {"sha256": None}, {"config": None}, {"config": "{"}],
    ids=["no_version", "bad_version", "no_kind", "no_checksum", "no_config", "bad_config"],
)
def test_a_broken_header_is_a_checkpoint_error_not_a_crash(tmp_path: Path, change: dict[str, str | None]) -> None:
    path = _with_header(_write(tmp_path / "m.safetensors"), **change)
    with pytest.raises(CheckpointError, match=r"m\.safetensors: .*(header|version (none|one))"):
        read_checkpoint(path, kind="export3d")


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "m.safetensors", kind="lebs")
    with pytest.raises(CheckpointError, match=r"holds a 'lebs' model; expected 'export3d'"):
        read_checkpoint(path, kind="export3d")


def test_old_files_pass_through_every_migration_of_their_kind_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {kind: _as_version_1(_write(tmp_path / f"{kind}.safetensors", kind=kind)) for kind in ("a", "b")}

    def one_to_two(tensors: dict[str, Tensor], config: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {n.replace("a.", "first."): t for n, t in tensors.items()}, {**config, "path": [1]}

    def two_to_three(tensors: dict[str, Tensor], config: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return tensors, {**config, "path": [*config["path"], 2]}

    monkeypatch.setattr(checkpoint, "VERSION", 3)
    monkeypatch.setitem(checkpoint.MIGRATIONS, ("a", 1), one_to_two)
    monkeypatch.setitem(checkpoint.MIGRATIONS, ("a", 2), two_to_three)
    stored = read_checkpoint(files["a"], kind="a")
    assert "first.weight" in stored.tensors and stored.config == {"hidden": 8, "path": [1, 2]}
    unchanged = read_checkpoint(files["b"], kind="b")
    assert "a.weight" in unchanged.tensors and unchanged.config == {"hidden": 8}


def test_a_file_of_todays_version_is_not_migrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(checkpoint.MIGRATIONS, ("export3d", 1), lambda tensors, config: ({}, {}))
    assert read_checkpoint(_write(tmp_path / "m.safetensors"), kind="export3d").config == {"hidden": 8}


def test_a_migration_that_fails_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(tensors: dict[str, Tensor], config: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        raise CheckpointError("a part is missing")

    monkeypatch.setitem(checkpoint.MIGRATIONS, ("a", 1), refuse)
    path = _as_version_1(_write(tmp_path / "m.safetensors", kind="a"))
    with pytest.raises(CheckpointError, match=r"m\.safetensors: a part is missing"):
        read_checkpoint(path, kind="a")


def test_strict_loading_copies_a_fitting_state() -> None:
    module = nn.Linear(3, 2)
    load_strictly(module, {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}, "here")
    assert (module.weight == 1).all()


def test_strict_loading_names_everything_that_does_not_fit_and_changes_nothing() -> None:
    module = nn.Linear(3, 2)
    before = module.bias.detach().clone()
    with pytest.raises(CheckpointError) as error:
        load_strictly(module, {"bias": torch.zeros(5), "extra": torch.zeros(1)}, "run/a.safetensors")
    assert str(error.value) == (
        "run/a.safetensors: the checkpoint does not fit the model: missing 'weight'; unexpected 'extra'; "
        "'bias' has shape (5,), expected (2,)."
    )
    assert torch.equal(module.bias, before)


def test_a_long_list_of_misfits_is_cut() -> None:
    with pytest.raises(CheckpointError, match="and 4 more"):
        load_strictly(nn.Linear(3, 2), {f"x{i}": torch.zeros(1) for i in range(7)}, "here")
