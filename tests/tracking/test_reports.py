"""MediaPipe's library is cut off from the network, and what it imports in vain is not loaded."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import pytest

from export3d.errors import MissingExtraError
from export3d.tracking import reports
from export3d.tracking.mediapipe_graphs import import_mediapipe


@pytest.mark.skipif(sys.platform != "linux", reason="only there")
def test_the_library_finds_no_host_and_no_proxy() -> None:
    pytest.importorskip("mediapipe")
    folder = Path(import_mediapipe().__file__).parent
    (library,) = folder.rglob("libmediapipe*.so")
    lines = Path("/proc/self/maps").read_text().splitlines()
    base = next(int(line.split("-")[0], 16) for line in lines if line.endswith(str(library)))
    for name, failing in (("getaddrinfo", "abs"), ("getenv", "atol")):
        held = ctypes.c_void_p.from_address(base + reports._entry(library, name)).value
        assert held == reports.address(failing), name
    assert ctypes.CDLL(None).abs(-3) == 3  # the rest of the process is as it was


def test_a_file_that_is_no_loaded_library_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.so").write_bytes(b"\x7fELF\x02" + bytes(59))
    assert not reports.stop_reports(tmp_path / "a.so")


def test_an_import_is_put_off_until_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_package.py").write_text("value = 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(reports, "_DEFERRED", ("slow_package",))
    with reports.deferred_imports():
        import slow_package as stub
    assert "slow_package" not in sys.modules
    assert stub.value == 7 and sys.modules["slow_package"].value == 7
    sys.modules.pop("slow_package")


def test_a_missing_system_library_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    mediapipe = pytest.importorskip("mediapipe")

    def fail(**_: object) -> None:
        raise OSError("libEGL.so.1: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(mediapipe, "Image", fail)
    with pytest.raises(MissingExtraError, match=r"system library libEGL\.so\.1.*apt-get install libegl1"):
        import_mediapipe()
