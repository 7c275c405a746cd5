"""What the README tells a newcomer to type really runs, and every file that it names exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image
from skimage import data

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language; the empty name is a block without one."""
    return [body for name, body in re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL) if name == language]


def commands() -> list[str]:
    lines = "\n".join(blocks("")).splitlines()
    return [line for line in lines if line.startswith("export3d ")]


def test_the_make_targets_exist() -> None:
    targets = [line.split()[1] for body in blocks("") for line in body.splitlines() if line.startswith("make ")]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets == ["demo", "test"]
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_every_linked_file_exists() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if not link.startswith("http")]
    links += re.findall(r"`(docs/[\w./]+)`", README)
    assert links
    missing = [link for link in links if not (ROOT / link).exists()]
    assert missing == []


def test_the_files_that_a_repository_needs_are_there() -> None:
    for name in ("LICENSE", "NOTICE", "CITATION.cff", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile"):
        assert (ROOT / name).stat().st_size > 200
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "USC Institute for Creative Technologies" in (ROOT / "NOTICE").read_text(encoding="utf-8")


def bundled_model() -> Path:
    from export3d.errors import CheckpointError
    from export3d.portrait.loading import checkpoint_path

    try:
        return checkpoint_path()
    except CheckpointError as error:
        pytest.skip(f"no bundled model yet: {error}")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the photo and the clip of the README's examples."""
    import sys

    sys.path.insert(0, str(Path(__file__).parent))
    from clips import make_clip

    pytest.importorskip("mediapipe")
    bundled_model()
    Image.fromarray(data.astronaut()[:320, 60:380]).save(tmp_path / "photo.jpg")
    make_clip(tmp_path / "clip.mp4", num_frames=5, size=(192, 192))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_run_in_the_order_of_the_readme(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from export3d.cli import main

    lines = commands()
    assert len(lines) >= 5
    for line in lines:
        code = main(shlex.split(line)[1:])
        assert code == 0, f"{line}\n{capsys.readouterr().err}"
    for name in ("talking.mp4", "turning.mp4", "motion.safetensors"):
        assert (folder / name).stat().st_size > 0


def test_the_python_example_runs_and_has_at_most_ten_lines(folder: Path) -> None:
    (example,) = blocks("python")
    assert len([line for line in example.splitlines() if line.strip()]) <= 10
    exec(compile(example, "README.md", "exec"), {})
    assert len(list(folder.glob("view_*.png"))) == 3
