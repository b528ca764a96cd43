"""The evidence of labels given features, against the density of the model that it maximizes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2timm.choose.logme import log_evidence, rank_correlation


def best_density(features: np.ndarray, target: np.ndarray) -> float:
    """The largest log density per sample of a linear model with normal weights and noise, on a grid."""
    scaled = (features - features.mean(0)) / features.std(0)
    best = -np.inf
    for alpha, beta in itertools.product(np.geomspace(1e-3, 1e6, 60), np.geomspace(1e-2, 1e3, 60)):
        covariance = np.eye(len(target)) / beta + scaled @ scaled.T / alpha
        _, determinant = np.linalg.slogdet(covariance)
        quadratic = target @ np.linalg.solve(covariance, target)
        best = max(best, -0.5 * (determinant + quadratic + len(target) * np.log(2 * np.pi)) / len(target))
    return best


@pytest.mark.parametrize("dimensions", [3, 40])
def test_evidence_is_the_highest_density(dimensions: int) -> None:
    generator = np.random.default_rng(dimensions)
    labels = generator.integers(0, 2, 25)
    features = generator.normal(size=(25, dimensions)) + 0.8 * labels[:, None] * (np.arange(dimensions) < 2)
    expected = np.mean([best_density(features, (labels == c).astype(float)) for c in (0, 1)])
    assert log_evidence(features, labels) == pytest.approx(expected, abs=0.02)


def test_features_that_separate_classes_are_better() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 120)
    noise = generator.normal(size=(120, 16))
    scores = [log_evidence(noise + strength * np.eye(16)[labels], labels) for strength in (0.0, 1.0, 3.0)]
    assert scores == sorted(scores)
    assert scores[2] > scores[0] + 0.1


def test_scale_of_features_does_not_matter() -> None:
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 2, 50)
    features = generator.normal(size=(50, 8))
    scaled = features * generator.uniform(0.1, 10, 8) + 5
    assert log_evidence(scaled, labels) == pytest.approx(log_evidence(features, labels))
    constant = np.concatenate([features, np.ones((50, 3))], 1)
    assert log_evidence(constant, labels) == pytest.approx(log_evidence(features, labels))


def test_what_cannot_be_ranked_is_an_error() -> None:
    with pytest.raises(ValueError, match="one class"):
        log_evidence(np.eye(4), np.zeros(4, np.int64))
    with pytest.raises(ValueError, match="finite"):
        log_evidence(np.full((4, 2), np.nan), np.arange(4))


@given(st.lists(st.integers(-5, 5), min_size=3, max_size=30))
def test_rank_correlation_sees_order_only(values: list[int]) -> None:
    one = np.array(values, float)
    if len(set(values)) < 2:
        assert np.isnan(rank_correlation(one, one))
        return
    assert rank_correlation(one, np.exp(one)) == pytest.approx(1)
    assert rank_correlation(one, -one) == pytest.approx(-1)


def test_known_rank_correlation() -> None:
    """Spearman 1904: 1 - 6 sum(d^2) / (n (n^2 - 1)) without ties."""
    one, other = np.array([1.0, 2, 3, 4, 5]), np.array([2.0, 1, 4, 3, 5])
    assert rank_correlation(one, other) == pytest.approx(1 - 6 * 4 / (5 * 24))
