"""Which networks make a film: for a long one OpenVINO's planes are worth their start (`portrait/openvino.py`)."""

from __future__ import annotations

import numpy as np

from export3d.animation.animator import Animator
from export3d.animation.parallel import TOGETHER
from export3d.portrait import PortraitModel
from export3d.portrait.openvino import ALIKE_DB, PAYS_FROM, CompiledGenerator, openvino_status
from export3d.portrait.quick import QuickGenerator, with_generator


def for_film(animator: Animator, frames: int | None, workers: int) -> Animator:
    """The animator, or for a film of so many frames one with OpenVINO's planes, where these give the same picture of the
    portrait. It is one or the other for all of the film: what it shows does not depend on what was sooner."""
    model, subject = animator.network, animator.current()
    if frames is None or frames < PAYS_FROM or not isinstance(model, PortraitModel):
        return animator
    if not (isinstance(quick := model.generator, QuickGenerator) and openvino_status()[0]):
        return animator
    code, dim = subject.code, model.config.expression.dim
    shapes = [(TOGETHER, *shape) for shape in (code.tokens.shape[1:], code.detail.shape[1:], (dim,))]
    try:
        other = animator.twin(with_generator(model, CompiledGenerator(quick, shapes, workers)))
        other.drive_ahead([subject.state] * TOGETHER)
        pictures = [each.frame(subject.state, subject.camera).astype(np.float32) for each in (animator, other)]
    except (ImportError, RuntimeError):  # PyTorch can
        return animator
    error = float(np.square(pictures[0] - pictures[1]).mean())
    return other if error <= 255.0**2 / 10.0 ** (ALIKE_DB / 10.0) else animator
