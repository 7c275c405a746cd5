"""Options of a preparation: everything that changes the result, kept beside it so that a rerun must agree."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from export3d.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """What is cut out and what is dropped."""

    layout: Literal["auto", "folder", "vfhq", "talkinghead", "csv"] = "auto"
    """How the inputs are laid out; auto looks at names."""
    size: int = 256
    """Side of the stored frames in pixels (Sec. 4.1)."""
    fps: int = 25
    """Rate of the stored clips; frames are chosen by time (Sec. 4.1)."""
    crop: Literal["eg3d", "fixed"] = "eg3d"
    """eg3d: a crop for each frame from five landmarks; fixed: one square for each clip, as FOMM does."""
    faces: Literal["largest", "all"] = "largest"
    """largest: follow the largest face; all: each face becomes a clip."""
    context: Literal["crop", "full"] = "crop"
    """VFHQ and TalkingHead-1KH from full videos: look inside the data set's crop only (as the authors' videos show),
    or use the full frame around it."""
    frame_format: Literal["png", "jpg"] = "png"
    """Stored frames: lossless, or JPEG of quality 95."""
    min_frames: int = 64
    """Shorter clips are dropped (FOMM's rule)."""
    max_frames: int = 512
    """Longer stretches are divided into equal clips."""
    min_face_px: float = 80.0
    """Clips whose median face is lower than this in the source are dropped."""
    min_sharpness: float = 10.0
    """Clips whose median sharpness (variance of the Laplacian in the face at 256 px) is lower are dropped."""
    min_confidence: float = 0.5
    """Clips whose mean face confidence is lower are dropped."""
    max_outside: float = 0.5
    """Clips of whose crop a larger share lies outside the picture, on average, are dropped."""
    shot_threshold: float = 0.5
    """Difference of colour histograms, 0 to 1, above which two frames belong to different shots."""
    identity: Literal["file", "folder"] = "file"
    """Folder of videos: who counts as one person: each file, or each folder (VoxCeleb's layout)."""
    split: Literal["auto", "train", "val", "test"] = "auto"
    """Put all clips into one split; auto follows the layout, else the shares below."""
    val_share: float = 0.0
    """Share of identities that goes to `val`, by a hash of the identity."""
    test_share: float = 0.0
    """Share of identities that goes to `test`, by a hash of the identity."""
    first_clip_only: bool = False
    """Keep the first valid clip of each identity only (TalkingHead-1KH's test list)."""
    native_fps: str | None = None
    """VFHQ frames without a meta file: their native rate, e.g. 30 or 30000/1001."""
    coefficients: Literal["regressor", "arkit52", "deep3d"] = "regressor"
    """What turns a face into beta and p: the bundled landmark regressor (ict64), MediaPipe's blendshapes (arkit52), or
    Deep3DFaceRecon (bfm64)."""
    face_landmarker: Path | None = None
    """Another face_landmarker.task than `export3d models get face-landmarker` fetches."""
    deep3d_checkpoint: Path | None = None
    """Deep3DFaceRecon's epoch_20.pth; needed for deep3d."""

    def __post_init__(self) -> None:
        rules = (
            ("--size", self.size, 32 <= self.size <= 2048, "32 to 2048"),
            ("--fps", self.fps, 1 <= self.fps <= 240, "1 to 240"),
            ("--min-frames", self.min_frames, self.min_frames >= 2, "at least 2"),
            ("--max-frames", self.max_frames, self.max_frames >= self.min_frames, "at least --min-frames"),
            ("--val-share", self.val_share, 0 <= self.val_share <= 1, "0 to 1"),
            ("--test-share", self.test_share, 0 <= self.test_share <= 1 - self.val_share, "0 to 1 - --val-share"),
            ("--max-outside", self.max_outside, 0 <= self.max_outside <= 1, "0 to 1"),
            ("--shot-threshold", self.shot_threshold, 0 < self.shot_threshold <= 1, "above 0, at most 1"),
        )
        for name, value, fits, expected in rules:
            if not fits:
                raise UsageError(f"{name}: expected {expected}; got {value}.")
        if self.coefficients == "deep3d" and self.deep3d_checkpoint is None:
            raise UsageError("--coefficients deep3d needs --deep3d-checkpoint epoch_20.pth.")
