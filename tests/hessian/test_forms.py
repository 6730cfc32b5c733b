"""The variance of a mean of quadratic forms is estimated without bias, from few probes, and is exact where H is diagonal."""

import math

import pytest
import torch

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.hessian import DenseOperator
from lgn_analysis.hessian.estimators.quadratic_forms import (
    MAX_BLOCK,
    QuadraticForms,
    block_size,
    draw,
    multiply,
    split,
)
from tests.hessian.cases import symmetric

SPECTRUM = [3.0, -1.0, 2.0, 0.5] + [0.1] * 16
WHOLE = {"all": slice(None)}


def forms_of(matrix, z, probes, slices=WHOLE):
    forms = QuadraticForms(slices, probes)
    for row, image in zip(z, z @ matrix, strict=True):
        forms.add(row, image)
    return forms


@pytest.mark.parametrize("probes", ["rademacher", "gaussian"])
def test_the_variance_is_unbiased(probes):
    matrix = symmetric(SPECTRUM)
    generator = torch.Generator().manual_seed(0)
    count, repeats = 8, 1500
    values = []
    for _ in range(repeats):
        z = draw(count, len(matrix), generator, probes)
        values.append(forms_of(matrix, z, probes).variance)
    values = torch.tensor(values)
    off = matrix.square().sum()
    if probes == "rademacher":
        off -= matrix.diagonal().square().sum()
    # 4.5 standard errors: false-alarm rate 7e-6.
    error = abs(float(values.mean()) - 2 * float(off) / count)
    assert error < 4.5 * float(values.std()) / math.sqrt(repeats)


def test_it_scatters_less_than_the_variance_of_the_forms():
    matrix = symmetric([1.0] + [0.0] * 29)
    generator = torch.Generator().manual_seed(0)
    ours, usual = [], []
    for _ in range(500):
        z = draw(16, 30, generator, "gaussian")
        ours.append(forms_of(matrix, z, "gaussian").variance)
        usual.append(float((z * (z @ matrix)).sum(1).var()) / 16)
    # At rank one the squared scatter is 2/16 against 2/15 + 12/16: a ratio of 7.
    assert torch.tensor(ours).std() < 0.6 * torch.tensor(usual).std()


def test_a_diagonal_matrix_has_no_variance():
    matrix = torch.diag(torch.linspace(-3, 7, 11, dtype=torch.float64))
    z = draw(9, 11, torch.Generator().manual_seed(0), "rademacher")
    assert forms_of(matrix, z, "rademacher").variance == 0.0


def test_few_signs_bound_the_variance_since_a_pair_of_entries_looks_diagonal():
    matrix = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    alike = torch.ones(2, 2, dtype=torch.float64)  # the same signs twice, as happens half the time
    assert forms_of(matrix, alike, "rademacher").variance == pytest.approx(2 * 2 / 2)


def test_slices_share_the_form():
    matrix = symmetric(SPECTRUM)
    z = draw(5, 20, torch.Generator().manual_seed(0), "gaussian")
    forms = forms_of(matrix, z, "gaussian", {"a": slice(0, 7), "b": slice(7, 20)})
    terms = z * (z @ matrix)
    torch.testing.assert_close(
        forms.layers, torch.stack([terms[:, :7].sum(1), terms[:, 7:].sum(1)], 1).mean(0)
    )
    assert forms.estimate == pytest.approx(float(terms.sum(1).mean()))
    assert forms.frobenius == pytest.approx(float((z @ matrix).square().sum(1).mean().sqrt()))


def test_a_copy_goes_on_alone():
    matrix = symmetric(SPECTRUM)
    z = draw(9, 20, torch.Generator().manual_seed(0), "rademacher")
    forms = forms_of(matrix, z[:7], "rademacher")
    before = (forms.count, forms.estimate, forms.variance, forms.frobenius)
    other = forms.copy()
    for row in z[7:]:
        other.add(row, matrix @ row)
    assert (forms.count, forms.estimate, forms.variance, forms.frobenius) == before
    whole = forms_of(matrix, z, "rademacher")
    assert other.variance == pytest.approx(whole.variance)
    assert other.count == 9


@pytest.mark.parametrize("probes", ["rademacher", "gaussian"])
@pytest.mark.parametrize("n", [1, 5, 40])
def test_a_stream_of_probes_is_the_same_in_any_portions(probes, n):
    whole = draw(9, n, torch.Generator().manual_seed(3), probes)
    generator = torch.Generator().manual_seed(3)
    parts = [draw(size, n, generator, probes) for size in (1, 4, 4)]
    assert torch.equal(torch.cat(parts), whole)


def test_blocks_fit_the_memory():
    assert block_size(100, 2**30) == MAX_BLOCK
    assert block_size(1000, 100_000) == 100_000 // (4 * 8 * 1000)
    with pytest.raises(InvalidInputError, match=r"one probe of 1000000 numbers takes 30\.5 MiB"):
        block_size(10**6, 10**6)
    assert list(split(10, 4)) == [4, 4, 2]
    assert list(split(0, 4)) == []


def test_a_product_that_is_not_finite_is_refused():
    operator = DenseOperator(torch.full((3, 3), float("nan"), dtype=torch.float64))
    with pytest.raises(InvalidInputError, match="not finite"):
        multiply(operator, torch.ones(1, 3, dtype=torch.float64))
