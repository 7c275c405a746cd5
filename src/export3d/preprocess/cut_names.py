"""Keys of clips: readable, unique, short enough for a tar member's name."""

from __future__ import annotations

import hashlib
import re

from export3d.preprocess.jobs import Cut, VideoJob

_MAX_CUT = 20


def clip_key(job: VideoJob, cut: Cut, number: int) -> str:
    """`<video>[-<cut>]-<number>`: at most 49 + 1 + 20 + 5 characters."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", cut.name)
    if len(name) > _MAX_CUT or name != cut.name:
        name = f"{name[: _MAX_CUT - 9]}-{hashlib.sha256(cut.name.encode()).hexdigest()[:8]}"
    return f"{job.key}{'-' + name if name else ''}-{number:03d}"
