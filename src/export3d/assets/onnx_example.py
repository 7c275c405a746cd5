"""One frame of the exported portrait model with onnxruntime alone: python example.py [portrait.png [face.npz]] [-o frame.png]

portrait.png is the square around a face, as `export3d animate` cuts it; face.npz holds what was measured in it and in a
driver, by the names of the graphs' inputs (README.md). What is missing is at rest, and the head turned a little.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

HERE = Path(__file__).resolve().parent


def look_at_head(yaw: float) -> np.ndarray:
    """(1, 25): a camera that sees a head turned by so many radians; camera to world 16, intrinsics 9."""
    s, c = math.sin(yaw), math.cos(yaw)
    world = [c, 0, s, -2.7 * s, 0, -1, 0, 0, s, 0, -c, 2.7 * c, 0, 0, 0, 1]
    focal = 2985.29 / 700.0
    return np.array([[*world, focal, 0, 0.5, 0, focal, 0.5, 0, 0, 1]], dtype=np.float32)


def picture(path: Path, size: int) -> np.ndarray:
    """(1, 3, size, size) in [-1, 1]."""
    image = Image.open(path).convert("RGB").resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(image, dtype=np.float32).transpose(2, 0, 1)[None] / 127.5 - 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("portrait", nargs="?", type=Path, default=HERE / "portrait.png")
    parser.add_argument("face", nargs="?", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("frame.png"))
    options = parser.parse_args()
    config = json.loads((HERE / "config.json").read_text())
    known = {
        "source": picture(options.portrait, config["image_size"]),
        "photo": picture(options.portrait, config["size"]),
    }
    known |= {"own_camera": look_at_head(0.0), "camera": look_at_head(0.3)}
    for name, width in config["state"].items():  # unknown numbers are NaN
        rest = math.nan if name in ("weights", "gaze") else 0.0
        known |= {prefix + name: np.full((1, width), rest, dtype=np.float32) for prefix in ("own_", "")}
    known["turn"] = np.array([[0.0, 0.3, 0.0]], dtype=np.float32)  # of the head against the torso, radians
    if options.face is not None:
        known |= dict(np.load(options.face))
    for name in ("encode", "drive", "rays", "picture"):
        graph = onnxruntime.InferenceSession(HERE / f"{name}.onnx", providers=["CPUExecutionProvider"])
        given = {x.name: known[x.name] for x in graph.get_inputs()}
        known |= dict(zip((x.name for x in graph.get_outputs()), graph.run(None, given), strict=True))
    image = ((known["image"][0].clip(-1.0, 1.0) + 1.0) * 127.5).round().astype(np.uint8)
    Image.fromarray(image.transpose(1, 2, 0)).save(options.output)


if __name__ == "__main__":
    main()
