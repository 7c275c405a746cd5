"""Opens the back ends of the metrics by name: face tracker, identity network, LPIPS (Sec. 4.2)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from export3d.errors import UsageError
from export3d.evaluation.metrics.backends import (
    FaceBackend,
    IdentityBackend,
    RememberedFaces,
    TrackerBackend,
    camera_pose,
)
from export3d.evaluation.metrics.outside import ArcFace, FaceAlignmentBackend
from export3d.evaluation.scores.run import Backends
from export3d.identity.network import IdentityNetwork, bundled_identity
from export3d.tracking import Tracker


@contextmanager
def open_backends(
    landmarks: str,
    identity: str,
    *,
    device: str = "cpu",
    deep3d_checkpoint: Path | None = None,
    lpips: tuple[Path, Path] | None = None,
) -> Iterator[Backends]:
    """What measures faces.

    Args:
        landmarks: `mediapipe`, `face-alignment`, or `none`.
        identity: `bundled`, `dlib` (real people), `none`, an ArcFace network (.onnx), or a file of train-identity.
        deep3d_checkpoint: expression and pose by Deep3DFaceRecon instead of the bundled regressor.
        lpips: VGG16's weights and LPIPS's weights per channel.
    """
    pictures = None
    if lpips is not None:
        from export3d.evaluation.metrics.picture_distance import LPIPSDistance

        pictures = LPIPSDistance(*lpips, device=device)
    if landmarks == "none":
        if identity not in ("bundled", "none"):
            raise UsageError("--identity needs faces: leave --landmarks none out.")
        yield Backends(pictures=pictures)
        return
    coefficients, pose = None, camera_pose
    if deep3d_checkpoint is not None:
        from export3d.tracking.deep3d import Deep3DModel, pose_numbers

        coefficients, pose = Deep3DModel(deep3d_checkpoint, "exact"), pose_numbers  # the other modes lose the distance
    with Tracker(coefficients=coefficients, choice="largest") as tracker:
        faces: FaceBackend = TrackerBackend(tracker, pose)
        if landmarks == "face-alignment":
            faces = FaceAlignmentBackend(faces, device=device)
        faces = RememberedFaces(faces)
        yield Backends(faces=faces, identities=_identity(identity, faces), pictures=pictures)


def _identity(choice: str, faces: FaceBackend) -> IdentityBackend | None:
    if choice == "none":
        return None
    if choice == "bundled":
        if not bundled_identity().is_file():
            raise UsageError(
                "--identity bundled: this installation has no identity network. Train one (export3d train-identity), "
                "name an ArcFace .onnx file, or say --identity none."
            )
        return IdentityNetwork.load(None, faces)
    if choice == "dlib":
        from export3d.evaluation.metrics.dlib_identity import DlibIdentity

        return DlibIdentity(faces)
    if choice.endswith(".onnx"):
        return ArcFace.from_onnx(choice, faces)
    if choice.endswith(".safetensors"):
        return IdentityNetwork.load(choice, faces)
    raise UsageError(
        f"--identity: '{choice}' is not known. Expected bundled, dlib, none, FILE.onnx or FILE.safetensors."
    )
