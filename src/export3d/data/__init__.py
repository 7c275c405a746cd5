"""Clip shards: how training, evaluation and preparation store talking-head clips (docs/data.md; Sec. 4.1)."""

from export3d.data.clip import Clip, make_meta
from export3d.data.dataset import ClipDataset
from export3d.data.manifest import Manifest, require_same_extractor
from export3d.data.pairs import contrastive_clip_at, pair_at
from export3d.data.source import ClipSource
from export3d.data.writer import ShardWriter

__all__ = [
    "Clip",
    "ClipDataset",
    "ClipSource",
    "Manifest",
    "ShardWriter",
    "contrastive_clip_at",
    "make_meta",
    "pair_at",
    "require_same_extractor",
]
