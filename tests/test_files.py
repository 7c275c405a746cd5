"""files.py: a file appears complete or not at all, and nothing else stays in its folder."""

from __future__ import annotations

import ast
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

import export3d
from export3d.errors import DataError, OutputError
from export3d.files import (
    TEMPORARY_GLOB,
    only_user,
    publish,
    replacing,
    temporary_beside,
    write_atomically,
    write_error,
)
from export3d.video.target import check_writable

SOURCE = Path(export3d.__file__).parent


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_written_file_replaces_the_old_one_and_nothing_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old and longer")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["a.json"]


def test_the_name_appears_only_at_the_end(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.bin") as temporary:
        temporary.write_bytes(b"half")
        assert names(tmp_path) == [temporary.name]
        assert list(tmp_path.glob(TEMPORARY_GLOB)) == [temporary]
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_or_ctrl_c_keeps_the_old_file_and_removes_the_new_one(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(error), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise error
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_a_full_disk_at_the_last_moment_is_a_typed_error_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        OutputError, match=r"a\.bin: cannot be written \(No space left on device\)\. Free some disk space"
    ) as caught:
        write_atomically(path, b"new", "Sweep up.")
    assert caught.value.exit_code == 30
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_a_missing_folder_and_a_file_as_folder_are_typed_errors(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"gone/a: cannot be written .* Check the folder and its rights"):
        write_atomically(tmp_path / "gone" / "a", b"")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="file/a: cannot be written"):
        write_atomically(tmp_path / "file" / "a", b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="folder: cannot be written"):
        write_atomically(tmp_path / "folder", b"")
    assert names(tmp_path) == ["file", "folder"]


def test_the_content_is_flushed_to_disk_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (calls.append("fsync"), fsync(descriptor))[1])
    monkeypatch.setattr(os, "replace", lambda *names: (calls.append("replace"), replace(*names))[1])
    temporary = temporary_beside(tmp_path / "a")
    temporary.write_bytes(b"x")
    publish(temporary, tmp_path / "a")
    assert calls == ["fsync", "replace"]


def test_temporary_names_are_hidden_in_the_same_folder_and_never_the_same(tmp_path: Path) -> None:
    first, second = temporary_beside(tmp_path / "a.tar"), temporary_beside(tmp_path / "a.tar")
    assert first != second
    assert first.parent == tmp_path and first.match(TEMPORARY_GLOB) and not first.match("*.tar")


def test_no_other_module_renames_files_itself() -> None:
    """A second way to write files would be the one that forgets to flush."""
    for path in sorted(SOURCE.rglob("*.py")):
        if path.name == "files.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                assert ast.unparse(node) not in ("os.replace", "os.rename", "tempfile.mkstemp"), path


def test_an_existing_file_keeps_its_rights_and_a_link_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    real.write_bytes(b"old")
    real.chmod(0o640)
    link.symlink_to(real)
    write_atomically(link, b"new")
    assert link.is_symlink() and real.read_bytes() == b"new"
    assert real.stat().st_mode & 0o777 == 0o640


def test_a_name_of_255_bytes_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    write_atomically(path, b"new")
    assert names(tmp_path) == ["n" * 255]


def test_the_next_write_clears_what_a_dead_process_left_but_not_what_a_living_one_writes(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    code = (
        "import os; from pathlib import Path; from export3d.files import temporary_beside\n"
        f"temporary_beside(Path({str(path)!r})).touch(); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    (left,) = tmp_path.glob(TEMPORARY_GLOB)
    ours = temporary_beside(path)
    assert not left.exists()
    ours.touch()
    write_atomically(path, b"new")
    assert names(tmp_path) == sorted([ours.name, "a.bin"])


@pytest.mark.parametrize(("number", "advice"), [(errno.ENOSPC, "Free some disk space"), (errno.EACCES, "rights")])
def test_the_disk_is_blamed_only_where_it_is_full(number: int, advice: str) -> None:
    assert advice in str(write_error(Path("a"), OSError(number, os.strerror(number))))


def test_a_folder_has_one_user_at_a_time(tmp_path: Path) -> None:
    with only_user(tmp_path, DataError):
        with pytest.raises(DataError, match="another run is working"), only_user(tmp_path, DataError):
            pass
    with only_user(tmp_path, DataError):
        pass


def test_a_device_or_a_pipe_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)
    with pytest.raises(OutputError, match=r"pipe\.mp4: this is a device, a pipe or a socket; give the name of a file"):
        check_writable(pipe)
    with pytest.raises(OutputError, match="device, a pipe or a socket"):
        write_atomically(pipe, b"new")
    assert pipe.is_fifo() and names(tmp_path) == ["pipe.mp4"]
