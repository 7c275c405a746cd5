"""Typed errors that a user can meet. Each says what, where, expected, got and what to do, and has its own exit code."""

from __future__ import annotations

import re


class Export3DError(Exception):
    """Base of all user-facing errors; the command line prints it without a traceback and exits with `exit_code`."""

    exit_code = 1


class UsageError(Export3DError):
    """A wrong option, preset name or combination of options."""

    exit_code = 2


class MissingExtraError(Export3DError):
    """An optional dependency is not installed; the message names the extra to install."""

    exit_code = 3


_SYSTEM_PACKAGES = {
    "libGL.so.1": "libgl1",
    "libEGL.so.1": "libegl1",
    "libGLESv2.so.2": "libgles2",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libgomp.so.1": "libgomp1",
}
"""Library -> Debian's package."""


def missing_library(what: str, error: BaseException) -> MissingExtraError | None:
    """The error for a package that is installed but whose system library is not; None where it is another matter."""
    found = re.match(r"(lib[\w.+-]+\.so[\d.]*): cannot open shared object file", str(error))
    if found is None:
        return None
    library = found.group(1)
    package = _SYSTEM_PACKAGES.get(library)
    how = f"sudo apt-get install {package}" if package else f"search your system's packages for {library}"
    return MissingExtraError(
        f"{what} needs the system library {library}, which is not there (the Python package is). On Debian and Ubuntu: {how}"
    )


class NoFaceError(Export3DError):
    """No face in a source image, or no face in any frame of a clip."""

    exit_code = 10


class SeveralFacesError(Export3DError):
    """Several faces and no choice was made with --face."""

    exit_code = 11


class FaceTooSmallError(Export3DError):
    """A face smaller than the tracker can use."""

    exit_code = 12


class FaceCutOffError(Export3DError):
    """A face that leaves the picture too far to be cropped."""

    exit_code = 13


class FaceLostError(Export3DError):
    """The face was lost during a clip and the policy is `abort`."""

    exit_code = 14


class UnreadableImageError(Export3DError):
    """Not an image, a truncated image, or an image of an unusable size."""

    exit_code = 20


class UnreadableVideoError(Export3DError):
    """Not a video, a truncated video, no video stream, or zero frames."""

    exit_code = 21


class MotionFileError(Export3DError):
    """An unreadable motion file, or one of a version or expression space that cannot be used."""

    exit_code = 22


class CheckpointError(Export3DError):
    """An unreadable, damaged, wrong-version or mismatching checkpoint."""

    exit_code = 23


class DataError(Export3DError):
    """A clip shard or data set that is damaged, incomplete or mixes extractors."""

    exit_code = 24


class HeadModelError(Export3DError):
    """A head model file that is missing, damaged or not of the documented layout."""

    exit_code = 25


class ImageSizeError(Export3DError):
    """An image too small or absurdly large."""

    exit_code = 26


class DownloadError(Export3DError):
    """A model file that has not been fetched, cannot be fetched, or is damaged."""

    exit_code = 27


class OutputError(Export3DError):
    """The output cannot be written: folder missing or not writable, or the disk is full."""

    exit_code = 30


class TrainingError(Export3DError):
    """Training cannot go on: NaN or infinite loss, or a configuration that does not match its checkpoint or data."""

    exit_code = 40


class CertificateError(Export3DError):
    """A signing certificate or key that is broken, does not fit, or cannot be kept; a manifest that cannot be signed."""

    exit_code = 50


class SourceNotAllowedError(Export3DError):
    """A portrait that is not among those of --allow, or a list that cannot be read."""

    exit_code = 51


class WorkerError(Export3DError):
    """Worker processes cannot start, or die again and again without any work in hand."""

    exit_code = 31
