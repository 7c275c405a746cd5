"""The map from beta to brows and lids (`model/upper_face.py`), fitted to clips that know the truth (no paper section)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from export3d.data.source import ClipSource
from export3d.errors import TrainingError
from export3d.heads.parametric import EXPRESSION_NAMES
from export3d.model.upper_face import UPPER_FACE
from export3d.training.ridge import ridge_map_with_bias

MOST_CLIPS = 400
"""More people change the map by less than its error."""

RIDGE = 1e-3
"""Ridge strength as a share of the number of frames; beta has about unit variance."""

_COLUMNS = [EXPRESSION_NAMES.index(name) for name in UPPER_FACE]
# left <-> right: the names come in pairs
_SWAPPED = [place ^ 1 for place in range(len(UPPER_FACE))]


def fit_upper_face(dataset: ClipSource) -> tuple[Tensor, Tensor]:
    """Ridge regression of the true weights on beta over the clips, also mirrored where they store the mirrored beta.

    Returns:
        weight ``(64, 10)`` and bias ``(10,)`` float32, for `UpperFace.set_map`.

    Raises:
        TrainingError: A clip has no true weights, as real ones.
    """
    betas, wanted = [], []
    for index in np.unique(np.linspace(0, len(dataset) - 1, min(len(dataset), MOST_CLIPS)).astype(int)):
        arrays = dataset.arrays(int(index))
        if "weights" not in arrays:
            raise TrainingError(
                f"{dataset.name}: clip {dataset.keys[index]} has no true expression weights, to which the map of brows and "
                "lids is fitted. Begin with a model that has the map (--start), or leave it out: --model.no-upper-face"
            )
        truth = arrays["weights"][:, _COLUMNS]
        betas.append(arrays["beta"])
        wanted.append(truth)
        if "beta_mirror" in arrays:
            betas.append(arrays["beta_mirror"])
            wanted.append(truth[:, _SWAPPED])
    beta = np.concatenate(betas).astype(np.float64)
    truth = np.concatenate(wanted).astype(np.float64)
    weight, bias = ridge_map_with_bias(beta, truth, RIDGE)
    return torch.from_numpy(weight).float(), torch.from_numpy(bias).float()
