"""What is hidden stays hidden, what is not measured is not asked, and processes share what one would make."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from uce.training.corpus import Corpus, Dataset
from uce.training.objectives.masked import MaskedSettings
from uce.training.objectives.questions import MaskedBatch
from uce.training.order import samples_of_step
from uce.training.settings import PretrainConfig

Configure = Callable[..., PretrainConfig]
PANEL = MaskedSettings(masking="panel", mask_fraction=0.5, queries=100, head="tied", offset="dataset")
CELLS = MaskedSettings(mask_fraction=0.2, queries=40)


def _ranks(vectors: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Ranks of genes from their vectors, -1 for tokens that are no genes."""
    first = dataset.vocabulary.first_gene
    known = {row.tobytes(): rank - first for rank, row in enumerate(dataset.vocabulary.vectors)}
    return np.array([max(known[row.tobytes()], -1) for row in vectors])


def _dataset(corpus: Corpus, config: PretrainConfig, step: int) -> tuple[Dataset, np.ndarray]:
    number, _, cells = samples_of_step(
        config.seed, step, batch_size=config.batch_size, sizes=corpus.sizes, balance=config.data.balance
    )
    return corpus.datasets[number], cells


@pytest.mark.parametrize("objective", [PANEL, CELLS, replace(CELLS, negatives="matched")])
def test_no_gene_that_is_asked_for_stands_in_the_sentence(
    corpus: Corpus, make_config: Configure, objective: MaskedSettings
) -> None:
    config = make_config(objective=objective)
    for step in range(20):
        batch = config.objective.make_batch(corpus, config, step)
        dataset, cells = _dataset(corpus, config, step)
        shown, asked = _ranks(batch.vectors, dataset), _ranks(batch.queries, dataset)
        counts = dataset.counts[cells].toarray()
        for cell in range(len(cells)):
            sentence = shown[batch.tokens[cell][batch.keep[cell]]]
            questions = asked if batch.asked is None else asked[batch.asked[cell]]
            assert not set(sentence) & set(questions)
            assert (counts[cell, sentence[sentence >= 0]] > 0).all()
            np.testing.assert_array_equal(batch.labels[cell], counts[cell, questions] > 0)
            assert dataset.measured[questions].all()


def test_exactly_the_share_asked_for_is_hidden_and_half_of_the_questions_are_seen_genes(
    corpus: Corpus, make_config: Configure
) -> None:
    config = make_config(objective=replace(CELLS, mask_fraction=0.3, queries=400), draws=5000)
    config = replace(config, rule=replace(config.rule, max_tokens=8000))
    batch = config.objective.make_batch(corpus, config, 0)
    dataset, cells = _dataset(corpus, config, 0)
    shown = _ranks(batch.vectors, dataset)
    for cell, row in enumerate(cells):
        seen = dataset.counts[row].nnz
        sentence = set(shown[batch.tokens[cell][batch.keep[cell]]]) - {-1}
        # 5,000 draws leave out none of about 100 genes; the hidden ones are all that is missing.
        assert seen - len(sentence) == round(0.3 * seen)
    assert (batch.labels.mean(axis=1) == 0.5).all()


def test_matched_questions_cannot_be_answered_from_detection_rates(
    make_corpus: Callable[..., Corpus], make_config: Configure
) -> None:
    corpus = make_corpus(sizes=(1000,))
    auroc = {}
    for negatives in ("uniform", "matched"):
        config = make_config(objective=replace(CELLS, negatives=negatives, queries=20), batch_size=500)
        batch = config.objective.make_batch(corpus, config, 0)
        rates = corpus.datasets[0].rates[_ranks(batch.queries, corpus.datasets[0])][batch.asked]
        positive, negative = rates[batch.labels == 1], rates[batch.labels == 0]
        ordered = np.sort(negative)
        wins = (np.searchsorted(ordered, positive) + np.searchsorted(ordered, positive, side="right")) / 2
        auroc[negatives] = wins.mean() / len(negative)
    assert auroc["uniform"] > 0.7
    assert 0.46 < auroc["matched"] < 0.54


def _cells_of(batch: MaskedBatch) -> list[bytes]:
    return [
        batch.vectors[tokens[keep]].tobytes() + labels.tobytes() + offsets.tobytes()
        for tokens, keep, labels, offsets in zip(batch.tokens, batch.keep, batch.labels, batch.offsets, strict=True)
    ]


@pytest.mark.parametrize("objective", [PANEL, CELLS])
def test_processes_share_the_batch_one_process_would_make(
    corpus: Corpus, make_config: Configure, objective: MaskedSettings
) -> None:
    config = make_config(objective=objective, data=replace(make_config().data, thinning=0.5))
    for step in range(3):
        whole = _cells_of(config.objective.make_batch(corpus, config, step))
        parts = [_cells_of(config.objective.make_batch(corpus, config, step, rank=rank, world=2)) for rank in range(2)]
        assert whole[0::2] == parts[0]
        assert whole[1::2] == parts[1]


def test_two_steps_two_seeds_and_two_visits_of_a_cell_differ(corpus: Corpus, make_config: Configure) -> None:
    config = make_config(objective=PANEL)
    again = config.objective.make_batch(corpus, config, 5)
    other = config.objective.make_batch(corpus, replace(config, seed=1), 5)
    assert _cells_of(config.objective.make_batch(corpus, config, 5)) == _cells_of(again)
    assert _cells_of(again) != _cells_of(other)
    assert not set(_cells_of(again)) & set(_cells_of(config.objective.make_batch(corpus, config, 6)))


def test_offsets_are_detection_rates_and_centred_depth(corpus: Corpus, make_config: Configure) -> None:
    config = make_config(objective=PANEL)
    batch = config.objective.make_batch(corpus, config, 0)
    dataset, cells = _dataset(corpus, config, 0)
    ranks = _ranks(batch.queries, dataset)
    counts = dataset.counts.toarray()
    rates = ((counts > 0).sum(axis=0)[ranks] + 1) / (len(counts) + 2)
    depth = np.log(counts.sum(axis=1))[cells]
    expected = np.log(rates / (1 - rates)) + (depth - depth.mean())[:, None]
    np.testing.assert_allclose(batch.offsets, expected, atol=1e-5)


def test_thinning_lowers_counts_and_leaves_the_answers(corpus: Corpus, make_config: Configure) -> None:
    config = make_config(objective=PANEL)
    thin = replace(config, data=replace(config.data, thinning=1.0))
    full, thinned = config.objective.make_batch(corpus, config, 0), thin.objective.make_batch(corpus, thin, 0)
    np.testing.assert_array_equal(full.labels, thinned.labels)
    genes = [len(set(row[keep])) for row, keep in zip(full.tokens, full.keep, strict=True)]
    fewer = [len(set(row[keep])) for row, keep in zip(thinned.tokens, thinned.keep, strict=True)]
    assert np.mean(fewer) < 0.9 * np.mean(genes)


def test_cells_with_too_few_genes_take_no_part_and_break_nothing(corpus: Corpus, make_config: Configure) -> None:
    sparse = corpus.datasets[0].counts[:50].tolil()
    sparse[:25] = 0
    sparse[:25, 3] = 1
    dataset = replace(corpus.datasets[0], counts=sparse.tocsr())
    for objective in (PANEL, CELLS):
        config = make_config(objective=objective)
        batch = config.objective.make_batch(replace(corpus, datasets=(dataset,)), config, 0)
        _, cells = _dataset(replace(corpus, datasets=(dataset,)), config, 0)
        np.testing.assert_array_equal(batch.valid, cells >= 25)
        assert batch.keep.any(axis=1).all()


def test_the_last_part_of_a_run_has_sentences_of_another_length(corpus: Corpus, make_config: Configure) -> None:
    config = make_config(draws=20, late_draws=80, late_from=0.5, steps=10, objective=PANEL)
    genes = []
    for step in (4, 5):
        batch = config.objective.make_batch(corpus, config, step)
        ranks = _ranks(batch.vectors, _dataset(corpus, config, step)[0])
        sentences = zip(batch.tokens, batch.keep, strict=True)
        genes.append({int((ranks[row[keep]] >= 0).sum()) for row, keep in sentences})
    assert genes == [{20}, {80}]
