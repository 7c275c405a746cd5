"""What every test shares: one thread, a fixed seed, markers of tests that need a GPU or the head model."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
import torch

from export3d.downloads import CACHE_VARIABLE, cache_folder

HEAD_MODEL_VARIABLE = "EXPORT3D_HEAD_MODEL"

SLOW_MODULES = frozenset(
    """
    test_end_to_end test_examples test_readme test_paper_document
    animation/test_animator animation/test_drivers animation/test_fill animation/test_film animation/test_group
    animation/test_paste animation/test_sweep
    animation/test_video_output
    cli/test_animate cli/test_bad_input cli/test_batch cli/test_bfm64 cli/test_events cli/test_hostile_outputs
    cli/test_provenance cli/test_real_and_synthetic cli/test_side_effects
    cli/test_sound_and_mesh cli/test_sweep_command cli/test_train
    evaluation/test_backend_accuracy evaluation/test_backends evaluation/test_consistency evaluation/test_evaluate
    evaluation/test_expression_content evaluation/test_figures evaluation/test_identity evaluation/test_picture_distance
    evaluation/test_reproduce evaluation/test_swap evaluation/test_synthetic
    fuzz/test_fuzz heads/test_appearance heads/test_clips heads/test_entanglement heads/test_extractor heads/test_procedural
    heads/test_raster heads/test_render heads/test_surface
    portrait/test_reference portrait/test_version_1
    preprocess/test_deep3d preprocess/test_frames preprocess/test_odd_videos preprocess/test_resume
    preprocess/test_tracks preprocess/test_workers
    provenance/test_mark
    studio/test_server studio/test_in_browser studio/test_workshop
    tracking/test_mediapipe_tracker tracking/test_track_command
    training/test_adversary training/test_batches
    training/test_distributed training/test_face_shapes training/test_gaze
    training/test_heads_stream training/test_mesh_regressor training/test_perceptual training/test_pretrain
    training/test_regressor training/test_resume training/test_start training/test_train
    """.split()
)
"""Modules whose tests train, render, track or start processes: all of them are marked `slow`."""


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
    # What is remembered between runs (signing certificate, consent) must not come from, or go to, the user's own folder.
    os.environ["EXPORT3D_CONFIG"] = tempfile.mkdtemp(prefix="export3d-config-")
    fetched = [path for path in cache_folder().glob("*") if path.is_file()]  # are read; what films keep goes elsewhere
    os.environ[CACHE_VARIABLE] = tempfile.mkdtemp(prefix="export3d-cache-")
    for path in fetched:
        (cache_folder() / path.name).symlink_to(path.resolve())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.with_suffix("").relative_to(here).as_posix() in SLOW_MODULES:
            item.add_marker(pytest.mark.slow)
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
