from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np
import pytest

from lgn_analysis.data import load_dataset, monks

# MD5 of the files in the UCI repository: monks-{1,2,3}.train and .test.
PUBLISHED = {
    1: ("fc1fc3a673e00908325c67cf16283335", "de4255acb72fb29be5125a7c874e28a0"),
    2: ("f109ee3f95805745af6cdff06d6fbc94", "106cb9049ba5ccd7969a0bd5ff19681d"),
    3: ("613e44dbb8ffdf54d364bd91e4e74afd", "46815731e31c07f89422cf60de8738e7"),
}


def published_file(index: np.ndarray, labels: np.ndarray) -> bytes:
    """The lines of a UCI file: label, six attributes, identifier."""
    robots = monks.combinations()
    lines = (
        f" {label} {' '.join(map(str, robots[i]))} data_{i + 1}\n"
        for i, label in zip(index, labels, strict=True)
    )
    return "".join(lines).encode()


@pytest.mark.parametrize("problem", [1, 2, 3])
def test_the_published_files_are_reproduced_byte_for_byte(problem):
    train = published_file(*monks.published_training_set(problem))
    test = published_file(np.arange(432), monks.published_test_labels(problem))
    checksums = tuple(hashlib.md5(file).hexdigest() for file in (train, test))
    assert checksums == PUBLISHED[problem]


def test_the_third_problem_has_five_percent_label_noise_and_the_others_none():
    for problem, n_wrong in ((1, 0), (2, 0), (3, 6)):
        index, labels = monks.published_training_set(problem)
        assert (labels != monks.published_test_labels(problem)[index]).sum() == n_wrong


def test_one_hot_sets_one_bit_per_attribute_and_tells_robots_apart():
    robots = monks.combinations()
    bits = monks.one_hot(robots)
    starts = np.cumsum([0, *monks.ATTRIBUTE_SIZES])
    for k, (a, b) in enumerate(pairwise(starts)):
        assert (bits[:, a:b].sum(axis=1) == 1).all()
        assert np.array_equal(bits[:, a:b].argmax(axis=1) + 1, robots[:, k])
    assert len(np.unique(bits, axis=0)) == 432


@pytest.mark.parametrize("problem", [1, 2, 3])
def test_training_and_validation_are_the_published_training_set(problem):
    data = load_dataset(f"monk{problem}")
    index, labels = monks.published_training_set(problem)
    published = np.c_[monks.one_hot(monks.combinations()[index]), labels]
    loaded = np.concatenate(
        [np.c_[x.numpy(), y.numpy()] for x, y in (data.split("train"), data.split("val"))]
    )
    assert sorted(loaded.astype(int).tolist()) == sorted(published.tolist())
    assert len(data.y_val) == monks.N_VALIDATION[problem]
    assert len(data.y_test) == 432
