"""Whether cell types come apart: whose neighbours are asked, and what their answers are worth."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from uce.training.batch import to_tensors, token_tables
from uce.training.corpus import Corpus, Dataset
from uce.training.probe import Probe, embed, open_probes, probe, read_rows
from uce.training.settings import PretrainConfig, ValidationSettings
from uce.training.trainee import Trainee

Configure = Callable[..., PretrainConfig]
CPU = torch.device("cpu")


def _labelled(corpus: Corpus, labels: list[str] | np.ndarray, *, number: int = 0) -> Corpus:
    """A corpus of one dataset, whose cells have these types."""
    named = np.asarray(labels, dtype=str)
    dataset = replace(corpus.datasets[number], fetch_labels=lambda column: named if column == "cell_type" else None)
    return replace(corpus, datasets=(dataset,))


def _open(corpus: Corpus, make_config: Configure, **settings: int) -> tuple[Probe, ...]:
    return open_probes(make_config(validation=ValidationSettings(every=1, **settings)), corpus)


def _programmes(corpus: Corpus) -> np.ndarray:
    """The programme of each planted cell: that of whose 50 genes most are seen."""
    vocabulary = corpus.datasets[0].vocabulary
    counts = corpus.datasets[0].by_rank(corpus.datasets[0].stored([(0, 400)]))[:, vocabulary.ranks[:200]]
    return (counts > 0).toarray().reshape(400, 4, 50).sum(axis=2).argmax(axis=1)


def test_a_cell_is_no_neighbour_of_its_own(corpus: Corpus, make_config: Configure) -> None:
    (asked,) = _open(_labelled(corpus, ["a", "b"] * 200), make_config, neighbours=1, probe_cells=40)
    # Pairs of equal cells, one of each type: the nearest other cell is always of the other type.
    pairs = np.repeat(np.eye(20, dtype=np.float32), 2, axis=0)
    assert asked.score(pairs) == (0.0, 0.0)
    sides = np.where(asked.labels[:, None] == "a", 1.0, -1.0) * np.ones((40, 3), np.float32)
    assert asked.score(sides * np.linspace(1, 2, 40)[:, None]) == (1.0, 1.0)
    assert all(np.isnan(asked.score(np.where(pairs > 0, np.nan, pairs))))


def test_the_macro_mean_gives_a_rare_type_its_weight(corpus: Corpus, make_config: Configure) -> None:
    (asked,) = _open(_labelled(corpus, ["common"] * 390 + ["rare"] * 10), make_config, neighbours=15)
    f1, accuracy = asked.score(np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32))
    assert accuracy == pytest.approx(0.975)
    assert f1 == pytest.approx(0.4937, abs=1e-4)


def test_the_baseline_sees_what_gene_vectors_show(corpus: Corpus, make_config: Configure) -> None:
    (asked,) = _open(_labelled(corpus, _programmes(corpus)), make_config)
    assert asked.baseline[0] > 0.9
    shuffled = np.random.default_rng(0).permutation(_programmes(corpus))
    (chance,) = _open(_labelled(corpus, shuffled), make_config)
    assert chance.baseline[0] < 0.4
    # A gene that is very common in one cell does not drown its others.
    counts = asked.counts.tolil()
    counts[np.arange(400), np.random.default_rng(1).integers(0, 600, 400)] = 5000
    assert replace(asked, counts=counts.tocsr()).baseline[0] > 0.8


@pytest.mark.parametrize(
    ("labels", "settings", "found"),
    [
        (["a"] * 200 + ["b"] * 200, {}, {"a": 200, "b": 200}),
        (["a"] * 200 + ["b"] * 200, {"probe_cells": 215}, {"a": 200, "b": 15}),
        (["a"] * 200 + ["b"] * 200, {"probe_cells": 205}, None),
        (["a"] * 200 + ["b"] * 200, {"probe_cells": 0}, None),
        (["a"] * 30 + ["unknown"] * 200 + ["b"] * 160 + ["c"] * 10, {"probe_cells": 60}, {"a": 30, "b": 30}),
        (["a"] * 300 + ["b"] * 91 + ["rare"] * 9, {}, {"a": 300, "b": 91}),
        (["a"] * 200 + ["Unknown", ""] * 90 + ["nan"] * 20, {}, None),
    ],
)
def test_types_of_ten_cells_and_more_are_asked_for(
    corpus: Corpus, make_config: Configure, labels: list[str], settings: dict[str, int], found: dict[str, int] | None
) -> None:
    opened = _open(_labelled(corpus, labels), make_config, **settings)
    counted = [dict(zip(*np.unique(asked.labels, return_counts=True), strict=True)) for asked in opened]
    assert counted == ([found] if found else [])


def test_a_dataset_without_types_is_left_out(corpus: Corpus, make_config: Configure) -> None:
    assert _open(corpus, make_config) == ()
    labelled = _labelled(corpus, ["a", "b"] * 50, number=1)
    both = replace(corpus, datasets=(corpus.datasets[0], *labelled.datasets))
    assert [asked.dataset.name for asked in _open(both, make_config)] == ["set1"]


def test_the_numbers_are_means_over_datasets(corpus: Corpus, make_config: Configure) -> None:
    first = _labelled(corpus, _programmes(corpus)).datasets[0]
    second = replace(first, name="again", fetch_labels=lambda _: np.array(["a", "b"] * 200))
    config = make_config(validation=ValidationSettings(every=1, probe_cells=100))
    probes = open_probes(config, replace(corpus, datasets=(first, second)))
    trainee, tables = Trainee(config).eval(), token_tables([corpus], CPU)
    with torch.no_grad():
        said = probe(probes, config, trainee, Accelerator(), tables)
        vectors = [embed(asked, config, trainee, Accelerator(), tables) for asked in probes]
    scores = [asked.score(embedded) for asked, embedded in zip(probes, vectors, strict=True)]
    assert said["probe"] == {"set0": scores[0][0], "again": scores[1][0]}
    assert said["probe_f1"] == pytest.approx((scores[0][0] + scores[1][0]) / 2)
    assert said["probe_accuracy"] == pytest.approx((scores[0][1] + scores[1][1]) / 2)
    assert said["probe_f1_baseline"] == pytest.approx((probes[0].baseline[0] + probes[1].baseline[0]) / 2)


def test_every_cell_has_the_vector_of_its_own_sentence(corpus: Corpus, make_config: Configure) -> None:
    (asked,) = _open(_labelled(corpus, ["a", "b"] * 200), make_config, probe_cells=45)
    config = make_config(draws=5)  # of training; probes have the rule of an embedding
    trainee, tables = Trainee(config).eval(), token_tables([corpus], CPU)
    with torch.no_grad():
        vectors = embed(asked, config, trainee, Accelerator(), tables)
        for cell in (0, 31, 32, 44):
            batch = asked.batch(np.array([cell]), config)
            assert batch.tokens.shape[1] > 90
            alone = trainee(to_tensors(batch, tables, CPU), embed=True)["cells"][0]
            np.testing.assert_allclose(vectors[cell], alone, atol=1e-5)
    assert vectors.shape == (45, 32)


@given(st.data())
def test_any_rows_are_read_in_their_order(data: st.DataObject) -> None:
    shards = tuple(data.draw(st.lists(st.integers(1, 150), min_size=1, max_size=4)))
    rows = data.draw(st.lists(st.integers(0, sum(shards) - 1), min_size=1, max_size=30))
    starts = np.cumsum((0, *shards))

    class _Rows(Dataset):
        def by_rank(self, stored: csr_matrix) -> csr_matrix:
            return stored

    def fetch(shard: int, start: int, stop: int) -> csr_matrix:
        assert 0 <= start < stop <= shards[shard]
        return csr_matrix(np.arange(starts[shard] + start, starts[shard] + stop)[:, None] + 1)

    dataset = _Rows("numbered", "", shards, fetch, lambda: None, None, {})  # type: ignore[arg-type, return-value]
    assert read_rows(dataset, np.array(rows)).toarray().ravel().tolist() == [row + 1 for row in rows]
