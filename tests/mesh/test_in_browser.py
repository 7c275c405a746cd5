"""A mesh in three.js and in model-viewer, in a real browser; `EXPORT3D_NODE_MODULES` names the folder that has both."""

from __future__ import annotations

import base64
import functools
import http.server
import io
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("playwright")
pytest.importorskip("trimesh")
sys.path.insert(0, str(Path(__file__).parents[1] / "studio"))

from browser import CHROMIUM, browser

from export3d.mesh import HeadMesh, write_mesh

NODE_MODULES = Path(os.environ.get("EXPORT3D_NODE_MODULES", "none"))
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(not NODE_MODULES.is_dir(), reason="EXPORT3D_NODE_MODULES names no folder"),
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="there is no Chromium"),
]

RADIUS = 0.2

THREE = """<!doctype html><script type="importmap">
{"imports": {"three": "./node_modules/three/build/three.module.js", "three/": "./node_modules/three/"}}
</script><script type="module">
import * as THREE from "three";
import { GLTFLoader } from "three/examples/jsm/loaders/GLTFLoader.js";
const scene = (await new GLTFLoader().loadAsync("head.glb")).scene;
const parts = [];
scene.traverse((node) => { if (node.isMesh) parts.push(node); });
const renderer = new THREE.WebGLRenderer({ preserveDrawingBuffer: true });
renderer.setSize(200, 200);
const camera = new THREE.OrthographicCamera(-0.2, 0.2, 0.2, -0.2, 0.1, 2);
camera.position.z = 1;
scene.add(new THREE.AmbientLight(0xffffff, 3));
window.names = parts.map((part) => Object.keys(part.morphTargetDictionary ?? {}));
window.shot = (name, weight) => {
  for (const part of parts) part.morphTargetInfluences[part.morphTargetDictionary[name]] = weight;
  const holder = new THREE.Scene();
  holder.add(scene);
  renderer.render(holder, camera);
  return renderer.domElement.toDataURL("image/png");
};
window.ready = true;
</script>"""

VIEWER = """<!doctype html><script type="module" src="./node_modules/@google/model-viewer/dist/model-viewer.min.js"></script>
<model-viewer src="head.glb" style="width: 200px; height: 200px"
 onload="window.ready = true" onerror="window.failed = true"></model-viewer>"""


@pytest.fixture
def page(tmp_path: Path, half: tuple[HeadMesh, np.ndarray]) -> Iterator[Any]:
    """A page beside a head whose front is a green photograph and whose shape `jawOpen` moves its lower half down."""
    mesh, photo = half
    points = mesh.vertices
    drop = np.where(points[:, 1:2] < 0.0, [[0.0, -0.1, 0.0]], 0.0).astype(np.float32)
    write_mesh(tmp_path / "head.glb", mesh, photo, {"jawOpen": drop, "other": 0 * drop})
    (tmp_path / "three.html").write_text(THREE)
    (tmp_path / "viewer.html").write_text(VIEWER)
    (tmp_path / "node_modules").symlink_to(NODE_MODULES.resolve())
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with browser(flags=["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]) as found:
            page = found.new_page()
            page.address = f"http://127.0.0.1:{server.server_port}/"
            yield page
        server.shutdown()


def picture(page: Any, weight: float) -> np.ndarray:
    """uint8 ``(200, 200, 3)``: what three.js draws; half a metre is 250 pixels."""
    address = page.evaluate(f"window.shot('jawOpen', {weight})")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))).convert("RGB"))


def test_three_draws_the_photograph_and_its_morph_targets_move_what_they_should(page: Any) -> None:
    page.goto(page.address + "three.html")
    page.wait_for_function("window.ready")
    assert page.evaluate("window.names") == [["jawOpen", "other"]] * 2
    still, open_ = picture(page, 0.0), picture(page, 1.0)
    green = still[100, 100].astype(int)
    assert green[1] > 100 and max(green[0], green[2]) < 30
    # The ball's radius is 0.2 * 0.47 m = 47 pixels, the drop 0.1 * 0.47 m = 23.5 pixels.
    rows = [np.flatnonzero(image.any(axis=2).any(axis=1))[[0, -1]] for image in (still, open_)]
    assert np.abs(rows[0] - [53, 146]).max() <= 2 and np.abs(rows[1] - [53, 170]).max() <= 2
    assert np.array_equal(still[:95], open_[:95])


def test_model_viewer_loads_it(page: Any) -> None:
    page.goto(page.address + "viewer.html")
    page.wait_for_function("window.ready || window.failed || document.querySelector('model-viewer').loaded")
    size = page.evaluate("(({x, y}) => [x, y])(document.querySelector('model-viewer').getDimensions())")
    assert size == pytest.approx([2 * 0.47 * RADIUS] * 2, rel=0.3) and not page.evaluate("!!window.failed")
