"""The table of arrows of docs/architecture.md: which part may import which. Stdlib ast and graphlib only."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import export3d

SOURCE = Path(export3d.__file__).parent
DOCUMENT = SOURCE.parent.parent / "docs" / "architecture.md"

LEAVES = (
    "checks",
    "errors",
    "camera",
    "configs",
    "images",
    "video",
    "files",
    "reading",
    "stopping",
    "tensor_files",
    "checkpoint",
    "landmarks",
    "precision",
    "face_state",
    "downloads",
)

ARROWS: dict[str, tuple[str, ...]] = {
    "nn": (),
    "rendering": (),
    "data": (),
    "provenance": ("rendering",),
    "expression": ("nn",),
    "model": ("expression", "rendering", "nn"),
    "portrait": ("model", "expression", "rendering", "nn"),
    "tracking": ("nn",),
    "identity": ("tracking",),
    "heads": ("data",),
    "speech": (),
    "mesh": ("portrait", "rendering"),
    "animation": ("portrait", "model", "expression", "rendering", "tracking", "provenance", "speech", "heads"),
    "studio": ("animation", "portrait", "tracking", "provenance", "mesh"),
    "fitting": ("data", "heads", "tracking", "identity"),
    "training": ("portrait", "model", "expression", "rendering", "nn", "data", "heads", "fitting"),
    "preprocess": ("data", "tracking"),
    "evaluation": (
        "animation",
        "training",
        "portrait",
        "expression",
        "fitting",
        "identity",
        "tracking",
        "heads",
        "data",
    ),
    "reproduce": ("evaluation", "animation", "training", "portrait", "model", "tracking", "heads", "data"),
}
"""Unit -> units it may import, besides the leaves. `cli` and the top __init__ may import all."""

ENTRY_POINTS = ("cli", "__init__", "__main__")

FORBIDDEN_AT_IMPORT = (
    *("mediapipe", "cv2", "torchvision", "webdataset", "tensorboard", "ray", "skimage", "torchmetrics", "pocketsphinx"),
    *("gradio", "streamlit", "flask", "fastapi", "starlette", "aiohttp", "uvicorn", "django", "tornado"),
)


def allowed(unit: str) -> set[str]:
    """Every unit that `unit` may import."""
    if unit in ENTRY_POINTS:
        return {*ARROWS, *LEAVES, *ENTRY_POINTS}
    if unit in LEAVES:
        return set(LEAVES)
    return {unit, *ARROWS[unit], *LEAVES}


def module_name(path: Path, root: Path) -> str:
    """`root/model/config.py` -> `export3d.model.config`."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(("export3d", *(p for p in parts if p != "__init__")))


def imports(path: Path, root: Path) -> Iterator[tuple[str, int]]:
    """(dotted name, line) of each import of this package, lazy ones too."""
    name = module_name(path, root)
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    for node in ast.walk(tree):
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            found = [f"{origin}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "import_module",
            "importlib.import_module",
        ):
            found = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        for target in found:
            if target == "export3d" or target.startswith("export3d."):
                yield target, getattr(node, "lineno", 0)


def violations(root: Path) -> list[str]:
    """Every unit that is not in the table and every import against the table, one line of text each."""
    known = {*ARROWS, *LEAVES, *ENTRY_POINTS}
    out = []
    for path in sorted(root.rglob("*.py")):
        unit = path.relative_to(root).parts[0].removesuffix(".py")
        if unit not in known:
            out.append(f"{path.relative_to(root)}: unit '{unit}' is not in the table of tests/test_architecture.py")
            continue
        for target, line in imports(path, root):
            parts = target.split(".")
            imported = parts[1] if len(parts) > 1 else "__init__"
            if imported == "__version__":  # the one name of the package itself that everybody may read
                continue
            if imported not in allowed(unit):
                out.append(f"{path.relative_to(root)}:{line}: '{unit}' must not import '{imported}' ({target})")
    return out


def module_cycle(root: Path) -> list[str] | None:
    """A cycle of modules that import each other, or None.

    Lazy imports count as well.
    """
    modules = {module_name(path, root): path for path in root.rglob("*.py")}
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        graph[name] = set()
        for target, _ in imports(path, root):
            while target not in modules and "." in target:
                target = target.rpartition(".")[0]
            if target not in (name, "export3d") and target in modules:
                graph[name].add(target)
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return list(error.args[1])
    return None


def test_no_part_imports_upwards_or_sideways() -> None:
    assert violations(SOURCE) == []


def test_no_modules_import_each_other() -> None:
    assert module_cycle(SOURCE) is None


def test_the_table_itself_has_no_cycle() -> None:
    order = list(TopologicalSorter(ARROWS).static_order())
    assert set(order) == set(ARROWS)


def test_the_document_shows_the_same_arrows() -> None:
    text = " ".join(DOCUMENT.read_text(encoding="utf-8").split())
    missing = [f"{u} -> {', '.join(t)}" for u, t in ARROWS.items() if t and f"{u} -> {', '.join(t)}" not in text]
    assert missing == []
    assert f"leaves: {' '.join(LEAVES)}" in text


def _tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def test_an_upward_import_is_found(tmp_path: Path) -> None:
    root = _tree(tmp_path, {"nn/conv.py": "x = 1\nfrom export3d.model.config import PRESETS\n"})
    assert violations(root) == ["nn/conv.py:2: 'nn' must not import 'model' (export3d.model.config.PRESETS)"]


def test_a_lazy_upward_import_inside_a_function_is_found(tmp_path: Path) -> None:
    root = _tree(tmp_path, {"rendering/rays.py": "def f():\n    from export3d import model\n    return model\n"})
    assert violations(root) == ["rendering/rays.py:2: 'rendering' must not import 'model' (export3d.model)"]


def test_a_relative_upward_import_is_found(tmp_path: Path) -> None:
    root = _tree(tmp_path, {"nn/conv.py": "from ..training import loop\n", "nn/__init__.py": "from . import conv\n"})
    assert violations(root) == ["nn/conv.py:1: 'nn' must not import 'training' (export3d.training.loop)"]


def test_an_import_by_string_is_found(tmp_path: Path) -> None:
    root = _tree(tmp_path, {"data/a.py": "import importlib\nm = importlib.import_module('export3d.heads')\n"})
    assert violations(root) == ["data/a.py:2: 'data' must not import 'heads' (export3d.heads)"]


def test_a_sideways_import_is_found(tmp_path: Path) -> None:
    root = _tree(tmp_path, {"animation/animator.py": "from export3d.training.loop.run import fit\n"})
    assert "'animation' must not import 'training'" in violations(root)[0]


def test_a_part_that_nobody_put_in_the_table_is_found(tmp_path: Path) -> None:
    root = _tree(tmp_path, {"kitchen/app.py": "", "utils.py": ""})
    assert [line.split(": ")[1] for line in violations(root)] == [
        "unit 'kitchen' is not in the table of tests/test_architecture.py",
        "unit 'utils' is not in the table of tests/test_architecture.py",
    ]


def test_the_top_package_may_not_be_imported_from_below_except_its_version(tmp_path: Path) -> None:
    root = _tree(tmp_path, {"nn/a.py": "from export3d import __version__\n", "nn/b.py": "import export3d\n"})
    assert violations(root) == ["nn/b.py:1: 'nn' must not import '__init__' (export3d)"]


def test_modules_that_import_each_other_are_found(tmp_path: Path) -> None:
    files = {"nn/a.py": "from export3d.nn import b\n", "nn/b.py": "import export3d.nn.a\n"}
    cycle = module_cycle(_tree(tmp_path, files))
    assert cycle is not None and {"export3d.nn.a", "export3d.nn.b"} == set(cycle)


def test_units_that_import_each_other_lazily_are_found(tmp_path: Path) -> None:
    files = {"nn/a.py": "from export3d.rendering import b\n", "rendering/b.py": "def f():\n    import export3d.nn.a\n"}
    assert module_cycle(_tree(tmp_path, files)) is not None


@pytest.mark.slow
def test_importing_the_package_loads_no_optional_or_heavy_library() -> None:
    """Every part but the command line, in a fresh interpreter."""
    parts = [u for u in (*LEAVES, *ARROWS) if (SOURCE / u / "__init__.py").exists() or (SOURCE / f"{u}.py").exists()]
    code = (
        "import sys, importlib\n"
        f"for part in {['export3d', *(f'export3d.{p}' for p in parts)]!r}: importlib.import_module(part)\n"
        f"print([name for name in {FORBIDDEN_AT_IMPORT!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_importing_the_top_package_does_not_even_load_torch() -> None:
    code = "import sys, export3d; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr
