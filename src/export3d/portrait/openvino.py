"""The planes of long films by OpenVINO (extra `fast`), where bf16 pays: PyTorch's within 50 dB, and sooner (no section)."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from importlib import metadata
from typing import Any

import torch
from torch import Tensor, nn

from export3d import __version__
from export3d.downloads import cache_folder
from export3d.files import replacing
from export3d.portrait.generator import PortraitGenerator
from export3d.portrait.graphs import planes_graph, write_graph
from export3d.portrait.quick import QuickGenerator
from export3d.precision import uses_bf16

PAYS_FROM = 100
"""Frames of a film that save as much as reading and compiling the graph cost."""

ALIKE_DB = 50.0
"""Pictures of both paths are at least so much alike, or PyTorch makes the planes."""


def openvino_status() -> tuple[bool, str]:
    """Whether long films take their planes from OpenVINO here, and its version or why not."""
    if any(importlib.util.find_spec(name) is None for name in ("openvino", "onnx")):
        return False, 'not installed; get it with: pip install "export3d[fast]"'
    if not uses_bf16("auto", torch.device("cpu")):
        return False, "bf16 is not faster on this processor"
    return True, metadata.version("openvino")


class CompiledGenerator(nn.Module):
    """A `QuickGenerator` that drives batches of one size by OpenVINO; several threads may at once.

    Args:
        shapes: of tokens, detail and conditions, batch included; other batches are PyTorch's.
        threads: that will drive.

    Raises:
        ImportError, RuntimeError: OpenVINO is not there, or cannot read or compile the graph.
    """

    def __init__(self, quick: QuickGenerator, shapes: Sequence[Sequence[int]], threads: int) -> None:
        super().__init__()
        self.quick, self.encode, self.detail, self._count = quick, quick.encode, quick.detail, shapes[0][0]
        self._compiled = _compiled(_graph(quick.full, shapes), threads)
        self._own = threading.local()  # a request for each thread

    def drive(self, tokens: Tensor, detail: Tensor, condition: Tensor) -> Tensor:
        """As `PortraitGenerator.drive`."""
        if len(tokens) != self._count:
            return self.quick.drive(tokens, detail, condition)
        if not hasattr(self._own, "request"):
            self._own.request = self._compiled.create_infer_request()
        planes = torch.empty(tuple(self._compiled.output(0).shape))
        self._own.request.set_output_tensor(_shared(planes))
        given = (x.float().contiguous() for x in (tokens, detail, condition))
        self._own.request.infer([_shared(x) for x in given], share_inputs=True)
        return planes


def _shared(x: Tensor) -> Any:
    import openvino  # pyright: ignore[reportMissingImports]

    return openvino.Tensor(x.numpy(), shared_memory=True)


@lru_cache(maxsize=1)
def _compiled(graph: bytes, threads: int) -> Any:
    """Kept for the next film: it does not depend on the portrait."""
    import openvino  # pyright: ignore[reportMissingImports]

    how = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": threads}
    core = openvino.Core()
    return core.compile_model(core.read_model(io.BytesIO(graph)), "CPU", how)


def _graph(generator: PortraitGenerator, shapes: Sequence[Sequence[int]]) -> bytes:
    """As ONNX, from the user's cache where it is there: to write it takes longer than to compile it."""
    digest = hashlib.sha256(f"{__version__} {torch.__version__} {shapes}".encode())
    for value in generator.state_dict().values():
        digest.update(value.detach().contiguous().numpy())
    path, file = cache_folder() / "graphs" / f"{digest.hexdigest()}.onnx", io.BytesIO()
    with suppress(OSError):
        return path.read_bytes()
    write_graph(planes_graph(generator, *shapes), file)
    with suppress(OSError):  # a folder that cannot be written costs time alone
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(file.getvalue())
    return file.getvalue()
