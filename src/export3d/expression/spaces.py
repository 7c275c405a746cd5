"""Named expression spaces: what the 64 numbers of beta mean. A checkpoint, a clip and a motion file name theirs."""

from __future__ import annotations

from dataclasses import dataclass

BETA_DIM = 64
"""Length of beta in every space (shorter spaces are padded with zeros)."""


@dataclass(frozen=True)
class ExpressionSpace:
    """One meaning of beta."""

    name: str
    used: int
    description: str


SPACES = {
    space.name: space
    for space in (
        ExpressionSpace("ict64", 64, "53 whitened PCA modes of ICT-FaceKit's expressions + 11 identity-residual modes"),
        ExpressionSpace("bfm64", 64, "Deep3DFaceRecon coefficients 80:144 (BFM-2009 with Guo et al.'s expressions)"),
        ExpressionSpace("arkit52", 52, "52 ARKit-named blendshape scores, padded with zeros"),
    )
}
"""The known spaces by name."""
