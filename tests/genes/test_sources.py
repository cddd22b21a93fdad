"""The published rule for chromosomes of a new species."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from uce.genes.sources import published_chromosome_vectors

# The 66 chromosomes of the published chicken example by number: the rule sees names only through their order.
CHICKEN = [f"{number:02d}" for number in range(66)]


def test_chromosomes_of_the_published_chicken_are_those_of_the_golden_file(shared):
    vectors = published_chromosome_vectors(9031, CHICKEN, "chicken", 5120)
    with np.load(shared / "golden" / "special_tokens.npz", allow_pickle=False) as content:
        for name, expected in zip(("00", "65"), content["taxon_9031_first16"], strict=True):
            np.testing.assert_array_equal(vectors[name][:16], expected)


def test_chromosomes_are_drawn_as_they_were_frozen():
    """Drawn by torch 2.13 on a CPU; the published recipe warns that other versions may draw others."""
    vectors = published_chromosome_vectors(9031, ["Z", "1", "MT"], "chicken", 5120)
    frozen = {
        "1": [-0.075796083, 0.210100755, -0.2236031],
        "MT": [0.827331603, -1.041552663, 0.836389661],
        "Z": [0.616886199, -0.730953395, 1.447320223],
    }
    for name, expected in frozen.items():
        np.testing.assert_array_equal(vectors[name][[0, 1, -1]], np.array(expected, np.float32))


def test_the_global_generator_draws_the_same_numbers():
    vectors = published_chromosome_vectors(4932, ["IV", "I", "Mito"], "yeast", 5120)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4932)
        expected = torch.normal(mean=0, std=1, size=(3, 5120)).numpy()
    np.testing.assert_array_equal(np.stack([vectors[name] for name in ("I", "IV", "Mito")]), expected)


def test_drawing_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    published_chromosome_vectors(9031, ["1"], "chicken", 64)
    assert torch.equal(before, torch.random.get_rng_state())


@given(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=12))
def test_rows_follow_the_sorted_texts_whatever_the_order_given(names):
    vectors = published_chromosome_vectors(9031, names, "chicken", 32)
    again = published_chromosome_vectors(9031, [*reversed(names), *names], "chicken", 32)
    assert list(vectors) == sorted(set(names))
    assert all(np.array_equal(vectors[name], again[name]) for name in vectors)
