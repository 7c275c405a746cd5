"""From a portrait to a talking head and to new views, in three steps, with the bundled samples (rendered people).

Run it whole (`python examples/portrait_to_views.py`), or cell by cell in an editor that knows `# %%`.
"""

# %% What is needed: the package, its samples, and a folder for the results.
import math
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image

from export3d import Animator, Camera, Tracker, load_model
from export3d.animation import TransferOptions, VideoOptions, animate_video, open_driver

SAMPLES = Path(str(files("export3d"))) / "assets" / "samples"
OUTPUT = Path("out/example")
OUTPUT.mkdir(parents=True, exist_ok=True)

# %% 1. The portrait. Its face is found and it is encoded once; all pictures below come from this code.
animator = Animator(load_model())
portrait = animator.portrait(SAMPLES / "portrait_1.png")

# %% 2. Animate it: the driver's expression and camera, frame by frame, with the portrait and the driver beside it.
driver = open_driver(
    SAMPLES / "driving.mp4",
    lambda: Tracker(choice="largest"),
    expression_space=animator.model.config.expression.space,
)
video = VideoOptions(side_by_side=True)
report = animate_video(animator, driver, OUTPUT / "talking.mp4", video=video, motion=TransferOptions())
driver.close()
print(f"{report.path}: {report.frames} frames, face lost in {report.lost}")

# %% 3. New views: the same expression, seen by cameras that go round the head. Yaw is in radians.
views = [
    animator.frame(portrait.state, Camera.look_at_head(yaw=math.radians(degrees)))  # uint8 (H, W, 3)
    for degrees in (-20, -10, 0, 10, 20)
]
Image.fromarray(np.hstack(views)).save(OUTPUT / "views.png")
