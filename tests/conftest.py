"""What every test shares: one thread, a fixed seed, markers of tests that need a GPU or the head model."""

from __future__ import annotations

import os

import pytest
import torch

HEAD_MODEL_VARIABLE = "EXPORT3D_HEAD_MODEL"


def skip_reason(keywords: object, *, has_gpu: bool, head_model: str | None) -> str | None:
    """Why a test with these marker names cannot run here, or None where it can."""
    names = set(keywords)  # type: ignore[call-overload]
    if "requires_gpu" in names and not has_gpu:
        return "needs a CUDA device"
    if "requires_shared" in names and not head_model:
        return f"needs the head model: set {HEAD_MODEL_VARIABLE}"
    return None


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        reason = skip_reason(
            [marker.name for marker in item.iter_markers()],
            has_gpu=torch.cuda.is_available(),
            head_model=os.environ.get(HEAD_MODEL_VARIABLE),
        )
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Every test starts from the same random state, whatever ran before it."""
    torch.manual_seed(0)
