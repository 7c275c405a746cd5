"""Videos as one animated WebP, rows below each other: made the README's picture (docs/index.md has the commands).

python examples/moving_picture.py a.mp4,a_orbit.mp4 b.mp4,b_orbit.mp4 -o readme.webp
"""

import argparse
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from export3d.video import VideoFrame, VideoReader


def main() -> None:
    """Every second frame of each video; videos of one row are joined by commas and have one height."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="+", help="videos side by side, joined by commas")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--quality", type=int, default=75, help="0 to 100")
    options = parser.parse_args()
    rows = [[VideoReader(name) for name in row.split(",")] for row in options.rows]
    readers = [reader for row in rows for reader in row]

    def joined(*together: VideoFrame) -> Image.Image:
        images = iter(together)
        return Image.fromarray(np.vstack([np.hstack([next(images).image for _ in row]) for row in rows]))

    first, *rest = map(joined, *(islice(reader, 0, None, 2) for reader in readers))  # the shortest video ends it
    each = round(2000 / float(readers[0].fps))  # milliseconds
    first.save(options.output, save_all=True, append_images=rest, duration=each, quality=options.quality, loop=0)
    for reader in readers:
        reader.close()


if __name__ == "__main__":
    main()
