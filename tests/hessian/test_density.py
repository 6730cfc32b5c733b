"""The density keeps the spectrum's mass and moments."""

import numpy as np
import pytest
import torch
from cases import SPECTRA, symmetric
from scipy.stats import wasserstein_distance

from lgn_analysis.hessian import DenseOperator, spectral_density


def density_of(name, **options):
    return spectral_density(DenseOperator(symmetric(SPECTRA[name])), **options)


@pytest.mark.parametrize("name", SPECTRA)
def test_weights_are_a_distribution(name):
    result = density_of(name, n_probes=3, steps=20)
    assert result.weights.sum() == pytest.approx(1)
    assert (result.weights >= 0).all()
    assert result.cdf(np.inf) == pytest.approx(1)


def test_a_multiple_of_the_identity_is_one_spike():
    result = spectral_density(DenseOperator(3 * torch.eye(20)), n_probes=2, steps=10)
    assert result.to_frame()["node"].tolist() == pytest.approx([3, 3])
    assert result.cdf(2.9) == 0
    assert result.n_matvecs == 2


def test_a_full_recurrence_has_the_moments_of_its_start_vector():
    # Gauss quadrature with m nodes is exact up to degree 2m − 1, here for all of a 40-dim space.
    matrix = symmetric(np.linspace(-1, 2, 40))
    result = spectral_density(DenseOperator(matrix), n_probes=1, steps=4, seed=3)
    generator = torch.Generator().manual_seed(3)
    z = 2.0 * torch.randint(0, 2, (40,), generator=generator).double() - 1
    power = z
    for order in range(1, 8):
        power = matrix @ power
        assert result.moment(order)[0] == pytest.approx(float(z @ power) / 40, abs=1e-10)


def test_moments_agree_with_the_spectrum_within_their_error():
    values = np.array(SPECTRA["indefinite"])
    result = density_of("indefinite", n_probes=64, steps=30)
    for order in range(1, 5):
        estimate, stderr = result.moment(order)
        # 64 probes, 5 standard errors: false-alarm rate below 1e-5 for each.
        assert abs(estimate - (values**order).mean()) < 5 * stderr


def test_the_density_is_nearer_to_the_spectrum_than_a_spike_at_zero():
    values = np.array(SPECTRA["indefinite"])
    frame = density_of("indefinite", n_probes=32, steps=30).to_frame()
    ours = wasserstein_distance(frame["node"], values, frame["weight"])
    spike = wasserstein_distance([0.0], values)
    assert ours < spike / 10


def test_smoothing_keeps_the_mass():
    result = density_of("rank-deficient", n_probes=4, steps=20)
    grid = np.linspace(-8, 8, 4001)
    assert np.trapezoid(result.density(grid, 0.05), grid) == pytest.approx(1, abs=1e-6)


def test_negative_mass_is_the_share_of_negative_curvature():
    values = np.array(SPECTRA["indefinite"])
    exact = -values[values < 0].sum() / abs(values).sum()
    assert density_of("indefinite", n_probes=64, steps=30).negative_mass == pytest.approx(
        exact, abs=0.05
    )
