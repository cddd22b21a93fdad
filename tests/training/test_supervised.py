"""The supervised objective: what it counts, what guessing gives, who takes no part, and the classifier it leaves."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from uce.errors import InputError, UsageError
from uce.model.classifier import Classifier
from uce.training.corpus import Corpus
from uce.training.objectives.supervised import SupervisedObjective, SupervisedSettings, classes_of
from uce.training.settings import PretrainConfig

from .conftest import GENES, batch_of, cells_of, dataset_in_memory, planted_counts, tensors_of, toy_config

LABELS = SupervisedSettings(classes=("a", "b", "c"), cells=(60, 30, 10))


def labelled_corpus(corpus: Corpus, labels: np.ndarray) -> Corpus:
    counts, _ = planted_counts(len(labels))
    vocabulary = corpus.datasets[0].vocabulary
    dataset = dataset_in_memory("set0", counts, np.ones(GENES, dtype=bool), vocabulary, labels=labels)
    return replace(corpus, datasets=(dataset,))


@pytest.fixture
def objective(make_config: Callable[..., PretrainConfig]) -> SupervisedObjective:
    return LABELS.build(make_config(objective=LABELS).model)


def test_a_fresh_head_guesses_evenly_and_learns_nothing_from_cells_without_a_label(
    objective: SupervisedObjective,
) -> None:
    cells = torch.nn.functional.normalize(torch.randn(4, 32), dim=1).requires_grad_()
    sums = objective.answer(cells, torch.tensor([0, 1, -1, 2]))
    assert sums["loss"].item() == pytest.approx(3 * math.log(3), abs=1e-5)
    assert float(sums["loss_chance"]) == pytest.approx(-math.log(0.6 * 0.3 * 0.1), abs=1e-5)
    assert (float(sums["labelled"]), float(sums["skipped"])) == (3, 1)
    torch.nn.init.normal_(objective.head.weight)
    loss = objective.loss(objective.answer(cells, torch.tensor([0, 1, -1, 2])), {"labels": torch.zeros(4)})
    loss.backward()
    assert cells.grad is not None
    assert float(cells.grad[2].abs().sum()) == 0 < float(cells.grad[0].abs().sum())


def test_a_line_of_the_log_is_of_labelled_cells_alone(objective: SupervisedObjective) -> None:
    with torch.no_grad():
        objective.head.bias.copy_(torch.tensor([9.0, 0.0, 0.0]))
    sums = objective.answer(torch.zeros(4, 32), torch.tensor([0, 0, 1, -1]))
    fields = objective.fields({name: value.double() for name, value in sums.items()}, step=1)
    assert next(iter(fields)) == "loss"
    assert fields["accuracy"] == pytest.approx(2 / 3)
    assert fields["loss"] == pytest.approx(9 / 3, abs=1e-2)
    assert fields["loss_chance"] == pytest.approx(-(2 * math.log(0.6) + math.log(0.3)) / 3, abs=1e-6)
    assert fields["skipped_cells"] == 1


def test_balanced_weights_have_a_mean_of_one_and_a_limit() -> None:
    balanced = replace(LABELS, balanced=True)
    np.testing.assert_allclose(balanced.weights, [100 / 180, 100 / 90, 100 / 30])
    assert balanced.weights @ balanced.shares == pytest.approx(1)
    assert replace(balanced, heaviest=2.0).weights.max() == 2.0
    assert LABELS.weights.tolist() == [1, 1, 1]


def test_labels_are_those_of_the_cells_shown_and_shares_of_processes_make_the_whole(
    corpus: Corpus, make_config: Callable[..., PretrainConfig]
) -> None:
    labels = np.array(["a", "b", "c", "unknown", "z"])[np.arange(200) % 5]
    corpus = labelled_corpus(corpus, labels)
    config = make_config(objective=LABELS)
    rows = np.arange(200) % 5
    tensors = tensors_of(corpus, config, 3)
    shown = cells_of(corpus, config, 3)
    expected = np.where(rows[shown.rows] < 3, rows[shown.rows], -1)
    np.testing.assert_array_equal(tensors["labels"], expected)
    parts = [batch_of(corpus, config, 3, rank=rank, world=2) for rank in (0, 1)]
    np.testing.assert_array_equal(parts[0].labels, expected[::2])  # type: ignore[attr-defined]
    np.testing.assert_array_equal(parts[1].labels, expected[1::2])  # type: ignore[attr-defined]


def test_classes_are_read_from_a_corpus_without_the_words_for_none(corpus: Corpus) -> None:
    labels = np.array(["b", "a", "Unknown", "", "b"])
    assert classes_of(labelled_corpus(corpus, labels).datasets) == (("a", "b"), (1, 2))
    with pytest.raises(InputError, match=r"set0: 1 label\(s\) in column cell_type"):
        classes_of(labelled_corpus(corpus, np.array(["a", "a"])).datasets)
    with pytest.raises(InputError, match=r"0 label\(s\) in column tissue"):
        classes_of(corpus.datasets, "tissue")


def test_the_classifier_says_what_the_head_says_and_can_begin_another(objective: SupervisedObjective) -> None:
    torch.manual_seed(0)
    torch.nn.init.normal_(objective.head.weight)
    torch.nn.init.normal_(objective.head.bias)
    cells = torch.nn.functional.normalize(torch.randn(5, 32), dim=1)
    classifier = LABELS.classifier(objective.state_dict())
    said = (objective.head(objective.log_scale.exp() * cells)).softmax(dim=1).detach().numpy()
    np.testing.assert_allclose(classifier.probabilities(cells.numpy()), said, atol=1e-6)
    other = SupervisedObjective(replace(LABELS, log_scale=1.0), toy_config().model)
    other.begin(classifier)
    np.testing.assert_allclose(LABELS.classifier(other.state_dict()).probabilities(cells.numpy()), said, atol=1e-6)
    fresh = SupervisedObjective(LABELS, toy_config().model)
    fresh.begin(Classifier(("a", "b", "d"), classifier.weight, classifier.bias))
    assert not fresh.head.weight.any()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"classes": ("a", "b")}, "2 labels and 0 numbers of cells"),
        ({"classes": ("a", "a"), "cells": (1, 1)}, "different labels"),
        ({"classes": ("a", "b"), "cells": (1, 0)}, "every class needs a cell"),
        ({"heaviest": 0.5}, "objective.heaviest = 0.5"),
        ({"log_scale": 9.0}, "objective.log_scale = 9"),
    ],
)
def test_settings_that_do_not_fit_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SupervisedSettings(**values)  # type: ignore[arg-type]


def test_fewer_than_two_classes_are_refused(make_config: Callable[..., PretrainConfig]) -> None:
    with pytest.raises(UsageError, match=r"objective.classes: none; two labels or more are needed"):
        make_config(objective=SupervisedSettings())
