"""LPIPS as a metric (Sec. 4.2), from weight files that the user brings; absent from the tables without them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch

from export3d.images import to_tensor
from export3d.training.losses.perceptual import load_lpips

_BATCH = 8


class LPIPSDistance:
    """A `PictureDistance`: LPIPS with VGG16, our own definition (export3d.training.losses.perceptual).

    The pictures keep their size; scores at two sizes cannot be compared.

    Args:
        vgg: torchvision's `vgg16-397923af.pth`.
        heads: the `vgg.pth` of the lpips package.
        device: where the network runs.

    Raises:
        CheckpointError: A file is missing, damaged, or not what its name says.
    """

    label = "pictures (LPIPS)"

    def __init__(self, vgg: Path, heads: Path, *, device: torch.device | str = "cpu") -> None:
        network, digests = load_lpips(vgg, heads)
        self._network = network.eval().to(device)
        self._device = device
        both = hashlib.sha256("".join(digests[name] for name in sorted(digests)).encode()).hexdigest()
        self.facts = {"name": "lpips-vgg16", "version": "0.1", "sha256": both, **digests}

    @torch.inference_mode()
    def distances(self, generated: np.ndarray, true: np.ndarray) -> np.ndarray:
        """See `PictureDistance.distances`."""
        parts = []
        for start in range(0, len(generated), _BATCH):
            ours, theirs = (to_tensor(x[start : start + _BATCH]).to(self._device) for x in (generated, true))
            parts.append(self._network(ours, theirs).double().numpy(force=True))
        return np.concatenate(parts)
