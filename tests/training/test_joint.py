"""Labels on some datasets and momentum contrast on the others, in one run."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from uce.config import build_config, config_to_dict
from uce.errors import UsageError
from uce.model.checkpoint import load_model
from uce.training.corpus import Corpus
from uce.training.loop import pretrain
from uce.training.objectives.joint import JointObjective, JointSettings
from uce.training.objectives.momentum import MomentumBatch, MomentumSettings
from uce.training.objectives.supervised import LabelledBatch, SupervisedSettings
from uce.training.records import read_metrics
from uce.training.settings import DataSettings, PretrainConfig, RunSettings
from uce.training.trainee import Trainee

from .conftest import batch_of, cells_of, planted_counts, tensors_of

Configure = Callable[..., PretrainConfig]
LABELLED = SupervisedSettings(classes=("0", "1", "2", "3"), cells=(30, 30, 30, 30))
UNLABELLED = MomentumSettings(panel_least=0.1, fewest_genes=5, queue=64, dim=16)
SETTINGS = JointSettings(with_labels=("set0",), labelled=LABELLED, unlabelled=UNLABELLED, weight=0.5)


@pytest.fixture
def labelled_corpus(corpus: Corpus) -> Corpus:
    """Labels of set0; who asks for those of set1 fails."""
    labels = planted_counts(400, seed=0)[1].astype(str)

    def never(_column: str) -> Any:
        raise AssertionError("labels that must not be read")

    first, second = corpus.datasets
    first, second = replace(first, fetch_labels=lambda _column: labels), replace(second, fetch_labels=never)
    return replace(corpus, datasets=(first, second))


def _parts(corpus: Corpus, config: PretrainConfig) -> dict[str, int]:
    """The first part of each dataset."""
    found: dict[str, int] = {}
    for part in range(20):
        found.setdefault(cells_of(corpus, config, part).dataset.name, part)
    return found


def test_each_dataset_has_its_objective_and_labels_of_the_others_are_not_read(
    labelled_corpus: Corpus, make_config: Configure
) -> None:
    config = make_config(objective=SETTINGS)
    for name, part in _parts(labelled_corpus, config).items():
        batch = batch_of(labelled_corpus, config, part)
        assert isinstance(batch, LabelledBatch if name == "set0" else MomentumBatch)
        alone = make_config(objective=LABELLED if name == "set0" else UNLABELLED)
        for key, value in vars(batch_of(labelled_corpus, alone, part)).items():
            assert np.array_equal(getattr(batch, key), value)


def test_the_loss_is_weighted_and_idle_heads_have_a_gradient_of_zero(
    labelled_corpus: Corpus, make_config: Configure
) -> None:
    config = make_config(objective=SETTINGS)
    torch.manual_seed(0)
    trainee = Trainee(config)
    objective = trainee.objective
    assert isinstance(objective, JointObjective)
    parts = _parts(labelled_corpus, config)
    unlabelled = tensors_of(labelled_corpus, config, parts["set1"])
    trainee(unlabelled)  # keys to tell from
    for name, weight, busy, idle in (
        ("set0", 1.0, objective.labelled, objective.unlabelled),
        ("set1", 0.5, objective.unlabelled, objective.labelled),
    ):
        batch = tensors_of(labelled_corpus, config, parts[name])
        trainee.zero_grad()
        sums = trainee(batch)
        loss = objective.loss(sums, batch)
        plain = {key.partition(".")[2]: value for key, value in sums.items()}
        torch.testing.assert_close(loss, weight * busy.loss(plain, batch))
        loss.backward()
        assert all((p.grad == 0).all() for p in idle.parameters() if p.requires_grad)
        assert any((p.grad != 0).any() for p in busy.parameters() if p.requires_grad)


def test_a_run_logs_both_and_brings_the_classifier_along(
    planted_files: DataSettings, make_config: Configure, tmp_path: Any
) -> None:
    run = RunSettings(workers=0, log_every=4, snapshot_every=4)
    config = make_config(data=planted_files, objective=SETTINGS, steps=4, accumulate=2, run=run)
    assert build_config(PretrainConfig, config_to_dict(config)) == config
    model = load_model(pretrain(config, out=tmp_path / "run"))
    assert model.classifier is not None
    assert model.classifier.labels == LABELLED.classes
    (line,) = read_metrics(tmp_path / "run")
    assert {"loss", "accuracy", "loss_unlabelled", "recall_unlabelled", "queue_filled_unlabelled"} <= set(line)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"with_labels": ()}, "objective.with_labels: none named"),
        ({"labelled": SupervisedSettings()}, "two labels or more"),
        ({"unlabelled": replace(UNLABELLED, queue=8)}, "holds less than"),
        ({"weight": -1.0}, "objective.weight"),
    ],
)
def test_what_cannot_work_is_refused(make_config: Configure, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make_config(objective=replace(SETTINGS, **changes))
