"""Opens the coefficient model that reads an expression space, by its name or by the space."""

from __future__ import annotations

from pathlib import Path

from export3d.checks import check_choice
from export3d.errors import UsageError
from export3d.tracking.faces import CoefficientModel, ExtractorInfo, ObservingModel

SPACE_OF = {"regressor": "ict64", "arkit52": "arkit52", "deep3d": "bfm64"}
"""Coefficient model -> the expression space that it reads."""


def open_coefficients(
    name: str, *, faces: ExtractorInfo, file: Path | None = None, space: str = "ict64"
) -> CoefficientModel | ObservingModel:
    """The landmark regressor, MediaPipe's blendshapes, or Deep3DFaceRecon.

    Args:
        name: a key of `SPACE_OF`, or `auto`: the one that reads `space`.
        faces: what made the faces; the blendshapes are its.
        file: a regressor file instead of the bundled one, or Deep3DFaceRecon's checkpoint, which has no default.

    Raises:
        UsageError: Another space than the wanted one, or no file where one is needed.
        CheckpointError: The file is missing, damaged, or of another structure.
    """
    if name == "auto":
        name = next(
            known for known, reads in SPACE_OF.items() if reads == check_choice("space", space, SPACE_OF.values())
        )
    if check_choice("--coefficients", name, SPACE_OF) == "deep3d":
        from export3d.tracking.deep3d import Deep3DModel

        if file is None:
            raise UsageError(
                "beta of the expression space 'bfm64' is read by Deep3DFaceRecon, whose weights are not part of this package: "
                "give its checkpoint, --extractor epoch_20.pth."
            )
        return Deep3DModel(file)
    if name == "arkit52":
        from export3d.tracking.arkit import BlendshapeModel

        if file is not None:
            raise UsageError(f"--extractor {file}: blendshapes come from the face tracker; leave the option out.")
        return BlendshapeModel(faces)
    from export3d.tracking.regressor import LandmarkRegressor

    return LandmarkRegressor.load(file)
