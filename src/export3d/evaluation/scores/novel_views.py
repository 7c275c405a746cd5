"""Views that no driving frame has: the expression of one frame at yaw -30, 0 and +30 degrees, against the truth (Fig. 10)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from export3d.data import ClipDataset
from export3d.errors import DataError
from export3d.evaluation.scores.synthetic import Truth
from export3d.portrait import Model
from export3d.training.batches.stored_portrait import StoredPortrait


def score_novel_views(
    model: Model, dataset: ClipDataset, *, on_progress: Callable[[int, int], None] | None = None
) -> dict[str, dict[str, float]]:
    """PSNR inside the true mask for each view, in decibels, means over the clips.

    The source is the most frontal of the other frames.

    Args:
        model: in evaluation mode.
        dataset: clips of `export3d heads render --novel-views`.

    Returns:
        `model`, and `frontal_in_place` (the model's frontal view put in place of the others), by degrees of yaw.

    Raises:
        DataError: A clip holds no novel views.
    """
    rows: dict[str, dict[str, list[float]]] = {"model": {}, "frontal_in_place": {}}
    for index in range(len(dataset)):
        degrees = dataset.meta(index)["extra"].get("novel_views_deg")
        if not degrees:
            raise DataError(
                f"{dataset.folder}: clip {dataset.keys[index]} holds no novel views; render it with "
                "`export3d heads render --novel-views`."
            )
        arrays = dataset.arrays(index)
        own = len(arrays["beta"]) - len(degrees)
        source = int(np.abs(dataset.head_angles(index)[:own, :2]).sum(axis=1).argmin())
        portrait = StoredPortrait(model, dataset, index, source)
        views = [portrait.drive(index, time).image for time in range(own, own + len(degrees))]
        frontal = views[int(np.argmin(np.abs(degrees)))]
        for offset, angle in enumerate(degrees):
            truth = Truth.read(dataset, index, own + offset)
            for name, image in (("model", views[offset]), ("frontal_in_place", frontal)):
                rows[name].setdefault(f"{angle:+g}", []).append(truth.foreground(image))
        if on_progress is not None:
            on_progress(index + 1, len(dataset))
    return {name: {angle: float(np.mean(values)) for angle, values in views.items()} for name, views in rows.items()}
