"""Raw videos become training clips: layouts, tracking, cutting, quality, shards, report (Sec. 4.1)."""

from export3d.preprocess.layouts import find_inputs
from export3d.preprocess.options import PrepareOptions
from export3d.preprocess.run import RunOptions, prepare

__all__ = ["PrepareOptions", "RunOptions", "find_inputs", "prepare"]
