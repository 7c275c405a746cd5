"""The maps from beta to expression weights (`model/face_shapes.py`), fitted to clips that know the truth (no paper section)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from export3d.data.source import ClipSource
from export3d.errors import TrainingError
from export3d.face_state import mirrored_name
from export3d.fitting.ridge import ridge_map_with_bias
from export3d.heads.shape.parametric import EXPRESSION_NAMES

MOST_CLIPS = 400
"""More people change the map by less than its error."""

RIDGE = 1e-3
"""Ridge strength as a share of the number of frames; beta has about unit variance."""


def fit_face_shapes(dataset: ClipSource, names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Ridge regression of the true weights on beta over the clips, also mirrored where they store the mirrored beta.

    Args:
        names: the S weights to read.

    Returns:
        weight ``(64, S)`` and bias ``(S,)`` float32, for `FaceShapes.set_map`.

    Raises:
        TrainingError: A clip has no true weights, as real ones.
    """
    columns = [EXPRESSION_NAMES.index(name) for name in names]
    swapped = [EXPRESSION_NAMES.index(mirrored_name(name)) for name in names]
    betas, wanted = [], []
    for index in np.unique(np.linspace(0, len(dataset) - 1, min(len(dataset), MOST_CLIPS)).astype(int)):
        arrays = dataset.arrays(int(index))
        if "weights" not in arrays:
            raise TrainingError(
                f"{dataset.name}: clip {dataset.keys[index]} has no true expression weights, to which the maps of upper and "
                "lower face are fitted. Begin with a model that has them (--start), or train the paper's model "
                "(--preset paper-small)."
            )
        betas.append(arrays["beta"])
        wanted.append(arrays["weights"][:, columns])
        if "beta_mirror" in arrays:
            betas.append(arrays["beta_mirror"])
            wanted.append(arrays["weights"][:, swapped])
    beta = np.concatenate(betas).astype(np.float64)
    truth = np.concatenate(wanted).astype(np.float64)
    weight, bias = ridge_map_with_bias(beta, truth, RIDGE)
    return torch.from_numpy(weight).float(), torch.from_numpy(bias).float()
