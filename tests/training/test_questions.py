"""What is hidden stays hidden, what is not measured is not asked, and processes share what one would make."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from uce.training.corpus import Corpus, Dataset
from uce.training.objectives.masked import MaskedSettings
from uce.training.objectives.questions import MaskedBatch
from uce.training.settings import PretrainConfig

from .conftest import batch_of, cells_of, dataset_in_memory, planted_counts

Configure = Callable[..., PretrainConfig]
PANEL = MaskedSettings(masking="panel", mask_fraction=0.5, queries=100, head="tied", offset="dataset")
CELLS = MaskedSettings(mask_fraction=0.2, queries=40)


def _ranks(tokens: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Ranks of the genes among tokens; those below 0 are no genes."""
    return tokens - dataset.vocabulary.first_gene


@pytest.mark.parametrize("objective", [PANEL, CELLS, replace(CELLS, negatives="matched")])
def test_no_gene_that_is_asked_for_stands_in_the_sentence(
    corpus: Corpus, make_config: Configure, objective: MaskedSettings
) -> None:
    config = make_config(objective=objective)
    for part in range(20):
        batch, cells = batch_of(corpus, config, part), cells_of(corpus, config, part)
        shown, asked = _ranks(batch.vectors, cells.dataset), _ranks(batch.queries, cells.dataset)
        counts = cells.counts.toarray()
        for cell in range(len(counts)):
            sentence = shown[batch.tokens[cell][batch.keep[cell]]]
            questions = asked if batch.asked is None else asked[batch.asked[cell]]
            assert not set(sentence) & set(questions)
            assert (counts[cell, sentence[sentence >= 0]] > 0).all()
            np.testing.assert_array_equal(batch.labels[cell], counts[cell, questions] > 0)
            assert cells.dataset.measured[questions].all()


def test_exactly_the_share_asked_for_is_hidden_and_half_of_the_questions_are_seen_genes(
    corpus: Corpus, make_config: Configure
) -> None:
    config = make_config(objective=replace(CELLS, mask_fraction=0.3, queries=400), draws=5000)
    config = replace(config, rule=replace(config.rule, max_tokens=8000))
    batch, cells = batch_of(corpus, config, 0), cells_of(corpus, config, 0)
    shown = _ranks(batch.vectors, cells.dataset)
    for cell, counts in enumerate(cells.counts):
        sentence = shown[batch.tokens[cell][batch.keep[cell]]]
        # 5,000 draws leave out none of about 100 genes; the hidden ones are all that is missing.
        assert counts.nnz - len(set(sentence[sentence >= 0])) == round(0.3 * counts.nnz)
    assert (batch.labels.mean(axis=1) == 0.5).all()


def test_matched_questions_cannot_be_answered_from_detection_rates(
    make_corpus: Callable[..., Corpus], make_config: Configure
) -> None:
    corpus = make_corpus(sizes=(1000,))
    auroc = {}
    for negatives in ("uniform", "matched"):
        config = make_config(objective=replace(CELLS, negatives=negatives, queries=20), batch_size=500)
        batch = batch_of(corpus, config, 0)
        rates = corpus.datasets[0].rates[_ranks(batch.queries, corpus.datasets[0])][batch.asked]
        positive, negative = rates[batch.labels == 1], rates[batch.labels == 0]
        ordered = np.sort(negative)
        wins = (np.searchsorted(ordered, positive) + np.searchsorted(ordered, positive, side="right")) / 2
        auroc[negatives] = wins.mean() / len(negative)
    assert auroc["uniform"] > 0.7
    assert 0.46 < auroc["matched"] < 0.54


def _cells_of(batch: MaskedBatch) -> list[bytes]:
    """All that is shown and asked of each cell."""
    return [
        batch.vectors[tokens[keep]].tobytes() + labels.tobytes() + offsets.tobytes()
        for tokens, keep, labels, offsets in zip(batch.tokens, batch.keep, batch.labels, batch.offsets, strict=True)
    ]


@pytest.mark.parametrize("objective", [PANEL, CELLS])
def test_processes_share_the_batch_one_process_would_make(
    corpus: Corpus, make_config: Configure, objective: MaskedSettings
) -> None:
    config = make_config(objective=objective, data=replace(make_config().data, thinning=0.5))
    for part in range(3):
        whole = _cells_of(batch_of(corpus, config, part))
        shares = [_cells_of(batch_of(corpus, config, part, rank=rank, world=2)) for rank in range(2)]
        assert whole[0::2] == shares[0]
        assert whole[1::2] == shares[1]


def test_two_parts_two_seeds_and_two_visits_of_a_cell_differ(corpus: Corpus, make_config: Configure) -> None:
    config = make_config(objective=PANEL)
    again = _cells_of(batch_of(corpus, config, 5))
    assert _cells_of(batch_of(corpus, config, 5)) == again
    assert _cells_of(batch_of(corpus, replace(config, seed=1), 5)) != again
    assert not set(again) & set(_cells_of(batch_of(corpus, config, 6)))


def test_a_cell_is_asked_something_else_on_each_visit(
    make_corpus: Callable[..., Corpus], make_config: Configure
) -> None:
    corpus, config = make_corpus(sizes=(32,)), make_config(objective=PANEL)  # every part shows every cell
    first, second = (cells_of(corpus, config, part) for part in range(2))
    assert set(first.rows) == set(second.rows) == set(range(32))
    assert not set(first.samples) & set(second.samples)
    assert not set(_cells_of(batch_of(corpus, config, 0))) & set(_cells_of(batch_of(corpus, config, 1)))


def test_offsets_are_detection_rates_and_centred_depth(corpus: Corpus, make_config: Configure) -> None:
    config = make_config(objective=PANEL)
    batch, cells = batch_of(corpus, config, 0), cells_of(corpus, config, 0)
    dataset = cells.dataset
    everything = dataset.by_rank(dataset.stored([(0, dataset.n_cells)])).toarray()
    rates = ((everything > 0).sum(axis=0)[_ranks(batch.queries, dataset)] + 1) / (len(everything) + 2)
    depth = np.log(everything.sum(axis=1))[cells.rows]
    expected = np.log(rates / (1 - rates)) + (depth - depth.mean())[:, None]
    np.testing.assert_allclose(batch.offsets, expected, atol=1e-5)


def test_thinning_lowers_counts_and_leaves_the_answers(corpus: Corpus, make_config: Configure) -> None:
    config = make_config(objective=PANEL)
    full = batch_of(corpus, config, 0)
    thinned = batch_of(corpus, replace(config, data=replace(config.data, thinning=1.0)), 0)
    np.testing.assert_array_equal(full.labels, thinned.labels)
    genes = [len(set(row[keep])) for row, keep in zip(full.tokens, full.keep, strict=True)]
    fewer = [len(set(row[keep])) for row, keep in zip(thinned.tokens, thinned.keep, strict=True)]
    assert np.mean(fewer) < 0.9 * np.mean(genes)


@pytest.mark.parametrize("objective", [PANEL, CELLS])
def test_cells_with_too_few_genes_take_no_part_and_break_nothing(
    corpus: Corpus, make_config: Configure, objective: MaskedSettings
) -> None:
    counts = planted_counts(50)[0].tolil()
    counts[:25] = 0
    counts[:25, 3] = 1
    sparse = dataset_in_memory("sparse", counts.tocsr(), np.ones(600, dtype=bool), corpus.datasets[0].vocabulary)
    sparse_corpus, config = replace(corpus, datasets=(sparse,)), make_config(objective=objective)
    batch = batch_of(sparse_corpus, config, 0)
    np.testing.assert_array_equal(batch.valid, cells_of(sparse_corpus, config, 0).rows >= 25)
    assert 0 < batch.valid.sum() < 32
    assert batch.keep.any(axis=1).all()


@pytest.mark.parametrize(("accumulate", "first_late"), [(1, 5), (2, 10)])
def test_the_last_updates_of_a_run_have_sentences_of_another_length(
    corpus: Corpus, make_config: Configure, accumulate: int, first_late: int
) -> None:
    settings = {"draws": 20, "late_draws": 80, "late_from": 0.5, "steps": 10, "objective": PANEL}
    config = make_config(**settings, accumulate=accumulate)
    genes = []
    for part in (first_late - 1, first_late):
        batch = batch_of(corpus, config, part)
        is_gene = _ranks(batch.vectors, corpus.datasets[0]) >= 0
        sentences = zip(batch.tokens, batch.keep, strict=True)
        genes.append({int(is_gene[row[keep]].sum()) for row, keep in sentences})
    assert genes == [{20}, {80}]
