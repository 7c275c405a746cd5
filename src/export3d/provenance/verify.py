"""What a file of any origin says about how it was made: its manifest, and the invisible mark."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from export3d.errors import UnreadableImageError
from export3d.images import read_image
from export3d.provenance.detect import SMALL_PX, FoundMark, MarkDetector, is_small
from export3d.provenance.manifest import ManifestReport, read_manifest
from export3d.video import VideoReader

MANIFEST_ONLY, MARK_ONLY, NOTHING, TAMPERED = 60, 61, 62, 63
"""Exit codes of `export3d verify` besides 0 (valid manifest and mark): manifest without mark, mark without manifest, neither,
and a file that was changed after signing. Of several files the highest counts."""

MAX_FRAMES = 64
"""Frames of a video that are looked at."""

_EVERY_S = 0.4  # seconds between two of them, less in a short video
_PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif"}


@dataclass(frozen=True, kw_only=True)
class FileReport:
    """What was found in one file.

    Attributes:
        manifest: signed facts.
        mark: the invisible mark, None where there is none.
        frames: pictures that were looked at for it.
        complete: every size was tried within the time limit.
        small: it is a picture so small that a mark is easily lost.
    """

    path: Path
    manifest: ManifestReport
    mark: FoundMark | None
    frames: int
    complete: bool
    small: bool = False

    @property
    def exit_code(self) -> int:
        """0 with a valid manifest and a mark, else one of the codes above."""
        if self.manifest.state == "tampered":
            return TAMPERED
        if self.manifest.state == "valid":
            return 0 if self.mark is not None else MANIFEST_ONLY
        return NOTHING if self.mark is None else MARK_ONLY

    def as_json(self) -> dict[str, Any]:
        """JSON-ready."""
        mark = None
        if self.mark is not None:
            mark = {
                "payload": f"{self.mark.payload:08x}",
                "run": self.mark.run,
                "score": round(self.mark.score, 2),
                "scale": round(self.mark.scale, 4),
                "mirrored": self.mark.mirrored,
            }
        looked = {"frames": self.frames, "complete": self.complete}
        code = self.exit_code
        return {
            "file": str(self.path),
            "code": code,
            "manifest": asdict(self.manifest),
            "mark": mark,
            "looked_at": looked,
        }


def verify_file(path: Path, *, time_limit_s: float = 60.0) -> FileReport:
    """Check a video or picture.

    Raises:
        UnreadableImageError, UnreadableVideoError, ImageSizeError: The file cannot be read as either.
    """
    deadline = time.monotonic() + time_limit_s
    if not path.is_file():
        raise UnreadableImageError(f"{path}: no such file.")
    picture = read_image(path) if path.suffix.lower() in _PICTURES else None
    manifest = read_manifest(path)
    detector = MarkDetector()
    if picture is not None:
        detector.add(picture)
        mark = detector.read(deadline)
    else:
        mark = _look_at_video(path, detector, deadline)
    complete = mark is not None or time.monotonic() <= deadline
    return FileReport(
        path=path,
        manifest=manifest,
        mark=mark,
        frames=detector.num_frames,
        complete=complete,
        small=picture is not None and is_small(picture),
    )


def _look_at_video(path: Path, detector: MarkDetector, deadline: float) -> FoundMark | None:
    """Read the mark from frames here and there; half of the time is kept for trying sizes."""
    stop_decoding = time.monotonic() + (deadline - time.monotonic()) / 2
    with VideoReader(path) as reader:
        every = max(1, round(_EVERY_S * float(reader.fps)))
        if reader.num_frames_hint:
            every = max(1, min(every, reader.num_frames_hint // MAX_FRAMES))
        for frame in reader:
            if frame.index % every:
                continue
            detector.add(frame.image)
            if detector.num_frames in (1, 4, 16):
                mark = detector.read_unscaled()
                if mark is not None:
                    return mark
            if detector.num_frames == MAX_FRAMES or time.monotonic() > stop_decoding:
                break
    return detector.read(deadline)


def in_words(report: FileReport) -> str:
    """The report in plain sentences, one line each."""
    said, lines = report.manifest, [f"{report.path}"]
    if said.state == "valid":
        vouched = "a trusted authority vouches for it" if said.trusted else "nobody vouches for this signer"
        lines.append(
            f"  manifest: valid. Made with {said.generator or 'an unnamed program'}, {said.when or 'no time given'}"
        )
        lines.append(f"    signed by {said.signer or 'an unnamed signer'} ({vouched}); unchanged since")
        if said.source_type:
            lines.append(f"    kind of picture: {said.source_type}")
        lines += [f"    {name.replace('_', ' ')}: {value}" for name, value in said.facts.items()]
    else:
        lines.append(f"  manifest: {said.state.upper() if said.state == 'tampered' else said.state}: {said.reason}")
    if report.mark is not None:
        mark = report.mark
        turned = ", mirrored" if mark.mirrored else ""
        size = "" if abs(mark.scale - 1.0) < 1e-3 else f", at {mark.scale:.2f} of its size"
        lines.append(
            f"  invisible mark: found. Made with Export3D, run {mark.run:06x} (score {mark.score:.1f}{size}{turned}; "
            "by chance less than once in a million files)"
        )
    else:
        ran_out = "" if report.complete else "; the time ran out before every size was tried (--time-limit)"
        small = f"; below {SMALL_PX} pixels a mark is easily lost" if report.small else ""
        lines.append(f"  invisible mark: not found in {report.frames} frames{small}{ran_out}")
    return "\n".join(lines)
