"""LogME: how well labels can be predicted from frozen features, without training anything.

The logarithm of the maximum evidence of a Bayesian linear model (You et al., https://arxiv.org/abs/2102.11005),
which ranks pretrained models for detection as well (https://arxiv.org/abs/2306.15306, 2403.09432).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["log_evidence", "rank_correlation"]

ROUNDS = 11  # of the fixed-point iteration, as in the authors' code
TINY = 1e-5
Floats = NDArray[np.float64]


def log_evidence(features: Floats, labels: NDArray[np.int64]) -> float:
    """The mean over classes of the maximum evidence per sample; higher is better.

    Args:
        features: (N, D) of N samples; constant ones are left out.
        labels: (N,) classes.

    Raises:
        ValueError: a feature is not finite, or there are no two classes.
    """
    if not np.isfinite(features).all():
        raise ValueError("features are not finite")
    classes = np.unique(labels)
    if len(classes) < 2:
        raise ValueError("labels of one class cannot be ranked")
    spread = features.std(axis=0)
    scaled = (features - features.mean(axis=0))[:, spread > TINY] / spread[spread > TINY]
    left, values, _ = np.linalg.svd(scaled, full_matrices=False)
    eigenvalues = values**2
    evidence = []
    for number in classes:
        target = (labels == number).astype(np.float64)
        evidence.append(_maximum(left.T @ target, eigenvalues, float(target @ target), *scaled.shape))
    return float(np.mean(evidence))


def _maximum(projected: Floats, eigenvalues: Floats, norm: float, samples: int, dimensions: int) -> float:
    """The evidence per sample for one target at the best precisions of weights and noise.

    Args:
        projected: (R,) the target in the directions of the features.
        eigenvalues: (R,) of the features' scatter.
        norm: squared length of the target.
        samples: N.
        dimensions: D.
    """
    squares = projected**2
    outside = max(norm - float(squares.sum()), 0.0)  # of the target, which no weights reach
    alpha, beta = 1.0, 1.0
    for _ in range(ROUNDS):
        ratio = alpha / beta
        effective = float((eigenvalues / (eigenvalues + ratio)).sum())
        weights = float((eigenvalues * squares / (eigenvalues + ratio) ** 2).sum())
        error = float((squares * (ratio / (eigenvalues + ratio)) ** 2).sum()) + outside
        alpha = effective / (weights + TINY)
        beta = (samples - effective) / (error + TINY)
        if abs(alpha / beta - ratio) <= 1e-3 * ratio:
            break
    ratio = alpha / beta
    weights = float((eigenvalues * squares / (eigenvalues + ratio) ** 2).sum())
    error = float((squares * (ratio / (eigenvalues + ratio)) ** 2).sum()) + outside
    determinant = float(np.log(alpha + beta * eigenvalues).sum())
    determinant += (dimensions - len(eigenvalues)) * np.log(alpha)
    total = (
        dimensions * np.log(alpha)
        + samples * np.log(beta)
        - beta * error
        - alpha * weights
        - determinant
        - samples * np.log(2 * np.pi)
    )
    return float(total / 2 / samples)


def rank_correlation(one: Floats, other: Floats) -> float:
    """Spearman's rank correlation, with mean ranks of equal values; NaN if all values of one are equal."""
    ranks = [_ranks(np.asarray(values, np.float64)) for values in (one, other)]
    with np.errstate(invalid="ignore"):
        return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: Floats) -> Floats:
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: Floats = (ends - (counts - 1) / 2)[index]
    return ranks
