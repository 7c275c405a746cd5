"""Makes tests/clips.py and patch_face.py importable, here and in worker processes (which inherit sys.path)."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
