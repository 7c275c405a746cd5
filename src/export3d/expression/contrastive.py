"""The contrastive loss of CLeBS, Eq. 1."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.checks import check_shape


def contrastive_loss(
    expression_codes: Tensor,
    image_codes: Tensor,
    *,
    temperature: float = 0.07,
    include_positive: bool = False,
    symmetric: bool = False,
) -> Tensor:
    r"""Eq. 1 with every frame of a clip as an anchor.

    .. math::
        L = \frac{1}{K} \sum_k -\log \frac{\exp(\cos(\beta'_k, f_I(X_k)) / \tau)}
                                          {\sum_{j \ne k} \exp(\cos(\beta'_k, f_I(X_j)) / \tau)}

    Negatives come from the anchor's own clip only, so that appearance cannot tell them apart.

    Args:
        expression_codes: ``(C, K, d)`` beta' of K frames of C clips.
        image_codes: ``(C, K, d)`` f_I of the same frames.
        temperature: tau.
        include_positive: False is the printed equation (the positive is left out of the denominator; the loss can be
            negative); True is InfoNCE.
        symmetric: also average the image-to-expression direction (not in the paper).

    Returns:
        A scalar. At chance (equal cosines) ln(K - 1), or ln K with `include_positive`.
    """
    check_shape("image_codes", image_codes, *expression_codes.shape)
    similarity = cosine_matrix(expression_codes, image_codes) / temperature  # (C, K, K)
    loss = _one_direction(similarity, include_positive)
    if symmetric:
        loss = 0.5 * (loss + _one_direction(similarity.transpose(1, 2), include_positive))
    return loss


def cosine_matrix(expression_codes: Tensor, image_codes: Tensor) -> Tensor:
    """``(C, K, K)`` cosines; row k holds anchor beta'_k against every image j of its clip."""
    return F.normalize(expression_codes.float(), dim=-1) @ F.normalize(image_codes.float(), dim=-1).transpose(1, 2)


def retrieval_accuracy(expression_codes: Tensor, image_codes: Tensor) -> Tensor:
    """Share of anchors whose nearest image within the clip is their own frame; chance is 1 / K."""
    best = cosine_matrix(expression_codes, image_codes).argmax(dim=-1)
    return (best == torch.arange(best.shape[1], device=best.device)).float().mean()


def _one_direction(similarity: Tensor, include_positive: bool) -> Tensor:
    positive = similarity.diagonal(dim1=1, dim2=2)  # (C, K)
    if not include_positive:
        own = torch.eye(similarity.shape[1], dtype=torch.bool, device=similarity.device)
        similarity = similarity.masked_fill(own, -torch.inf)
    return (torch.logsumexp(similarity, dim=-1) - positive).mean()
