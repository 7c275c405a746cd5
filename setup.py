"""Builds the fused renderer's library beside the package where there is a C++ compiler; without one the install goes on.

`pip install .` and `pip install -e .` do it by themselves; `python setup.py build_ext --inplace` builds it again.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

KERNEL = Path("src/export3d/rendering/fused/kernel")

COMMON = ["-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
COMMON += ["-fvisibility=hidden", "-Wno-psabi", "-g0"]
WIDER = {
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"],
}
MICROSOFT = ["/std:c++17", "/O2", "/fp:contract", "/EHsc"]
MICROSOFT_WIDER = {"avx2": ["/arch:AVX2"], "avx512": ["/arch:AVX512"]}


class BuildKernel(build_ext):
    """Compiles march.cpp once for each instruction set, and links the versions with the one file that picks among them."""

    def build_extension(self, ext: Extension) -> None:
        """Called for the one extension there is. As it is optional, setuptools reports an error and goes on."""
        microsoft = self.compiler.compiler_type == "msvc"
        flags, wider = (MICROSOFT, MICROSOFT_WIDER) if microsoft else (COMMON, WIDER)
        x86 = platform.machine().lower() in ("x86_64", "amd64", "i686")
        folder, macros = Path(self.build_temp), [("EXPORT3D_X86", "1")] if x86 else []
        objects = self._compile("dispatch", folder, flags, macros)
        for name, more in {"plain": [], **(wider if x86 else {})}.items():
            objects += self._compile("march", folder / name, flags + more, [("EXPORT3D_KERNEL", name)])
        links = [] if microsoft or sys.platform == "darwin" else ["-pthread"]
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        self.compiler.link_shared_object(objects, str(target), extra_postargs=links, target_lang="c++")

    def _compile(self, name: str, folder: Path, flags: list[str], macros: list) -> list[str]:
        source = [str(KERNEL / f"{name}.cpp")]
        return self.compiler.compile(source, output_dir=str(folder), macros=macros, extra_postargs=flags)


setup(
    ext_modules=[Extension("export3d.rendering.fused._kernel", [], optional=True)],
    cmdclass={"build_ext": BuildKernel},
)
