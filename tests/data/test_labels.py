"""Training labels that are not the true ones say what they are meant to say, and nothing else."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from lgn_analysis.base.errors import DataError
from lgn_analysis.data import Dataset, load_dataset, relabelled

CLASSES = 3


@pytest.fixture
def data():
    x = torch.arange(12)[:, None] >> torch.arange(4) & 1  # twelve different inputs
    y = torch.tensor([0] * 6 + [1] * 4 + [2] * 2)
    return Dataset.from_arrays(x, y, x[:3], y[:3], x[3:7], y[3:7], name="mine", n_classes=CLASSES)


def test_permuted_labels_are_those_of_other_samples_of_the_training_split_alone(data):
    found = relabelled(data, "permuted", seed=1)
    assert torch.equal(found.y_train.bincount(), data.y_train.bincount())
    assert not torch.equal(found.y_train, data.y_train)
    assert torch.equal(found.x_train, data.x_train)
    for split in ("val", "test"):
        assert torch.equal(found.split(split)[1], data.split(split)[1])
    assert repr(found).endswith(", permuted training labels)")


def test_a_permutation_follows_its_seed_on_every_platform():
    digits = load_dataset("digits")
    found = [relabelled(digits, "permuted", seed=seed) for seed in (0, 0, 2**64 - 1)]
    assert found[0].fingerprint == found[1].fingerprint
    assert len({digits.fingerprint, *(item.fingerprint for item in found)}) == 3
    assert found[0].y_train[:12].tolist() == [0, 4, 3, 7, 8, 5, 6, 4, 7, 5, 4, 9]
    # 1257 samples in ten classes: a sample keeps its class by chance one time in ten, and the binomial
    # 99.9999 % interval around 126 is 126 ± 53.
    kept = int((found[0].y_train == digits.y_train).sum())
    assert 73 <= kept <= 179


def test_independent_labels_are_every_sample_once_with_every_class(data):
    found = relabelled(data, "independent")
    pairs = [(tuple(x.tolist()), int(y)) for x, y in zip(found.x_train, found.y_train, strict=True)]
    assert len(pairs) == len(set(pairs)) == 12 * CLASSES
    assert torch.equal(found.x_train[:12], data.x_train)
    assert found.y_train[:12].bincount().tolist() == [4, 4, 4]
    assert torch.equal(found.y_test, data.y_test)


def test_no_network_has_a_lower_loss_on_independent_labels_than_none_at_all(data):
    found = relabelled(data, "independent")
    logits = torch.zeros(12, CLASSES, dtype=torch.float64, requires_grad=True)
    loss = cross_entropy(logits.repeat(CLASSES, 1), found.y_train)
    assert loss.item() == pytest.approx(math.log(CLASSES), rel=1e-12)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.abs().max() < 1e-15  # and the loss is convex in the logits


def test_true_labels_are_the_data_themselves(data):
    assert relabelled(data, "true") is data


@pytest.mark.parametrize(
    ("labels", "seed", "message"),
    [
        ("random", 0, "unknown labels 'random'; use one of true, permuted, independent"),
        ("permuted", -1, r"label_seed must lie in 0..2\*\*64-1, got -1"),
    ],
)
def test_what_are_no_labels_is_refused(data, labels, seed, message):
    with pytest.raises(DataError, match=message):
        relabelled(data, labels, seed=seed)


def test_labels_are_changed_once(data):
    with pytest.raises(DataError, match="of 'mine' are permuted already; start from the data"):
        relabelled(relabelled(data, "permuted"), "independent")
