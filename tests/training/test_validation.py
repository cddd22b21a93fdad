"""What is measured beside training: other cells, always the same, and the same numbers from any number of processes."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from uce.errors import UsageError
from uce.training.batch import to_tensors, token_tables
from uce.training.corpus import Corpus, open_corpus
from uce.training.objectives.contrastive import ContrastiveSettings
from uce.training.settings import DataSettings, PretrainConfig, ValidationSettings
from uce.training.trainee import Trainee
from uce.training.validation import Validation, open_validation

Configure = Callable[..., PretrainConfig]
VIEWS = ContrastiveSettings(panel_least=0.1, fewest_genes=5, clip_steps=2)
CPU = torch.device("cpu")


@pytest.fixture
def config(make_config: Configure, planted_files: DataSettings) -> PretrainConfig:
    """Two datasets to train on and one, `kept`, to validate on, with the programme of a cell as its type."""
    return make_config(data=planted_files, validation=ValidationSettings(every=4, batches=3))


@pytest.fixture
def validation(config: PretrainConfig) -> Validation:
    opened = open_validation(config, open_corpus(config.data))
    assert opened is not None
    return opened


def _trainee(config: PretrainConfig) -> Trainee:
    torch.manual_seed(1)
    return Trainee(config).eval()


def test_it_is_of_the_split_asked_for_and_shares_the_gene_vectors(config: PretrainConfig) -> None:
    train = open_corpus(config.data)
    opened = open_validation(config, train)
    assert opened is not None
    (kept,) = opened.corpus.datasets
    assert kept.name == "kept"
    assert kept.vocabulary is train.datasets[0].vocabulary
    assert [probe.dataset.name for probe in opened.probes] == ["kept"]
    assert open_validation(replace(config, validation=ValidationSettings()), train) is None


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("test", r"corpus: no dataset has cells of validation\.split = 'test'\. Name another split"),
        ("train", r"validation\.split = 'train' is what is trained on"),
    ],
)
def test_a_split_that_cannot_be_measured_is_refused(config: PretrainConfig, split: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_validation(replace(config, validation=ValidationSettings(every=1, split=split)), open_corpus(config.data))


def test_the_numbers_are_those_of_the_objective_over_all_batches(
    config: PretrainConfig, validation: Validation
) -> None:
    trainee = _trainee(config)
    tables = token_tables([validation.corpus], CPU)
    measured = validation.measure(trainee, trainee.objective, Accelerator(), tables)
    totals: dict[str, Any] = {}
    for number in range(3):
        for name, value in trainee(to_tensors(validation.batch(number), tables, CPU)).items():
            totals[name] = totals.get(name, 0) + value.detach().double()
    expected = {f"valid_{name}": value for name, value in trainee.objective.fields(totals, step=0).items()}
    assert list(measured) == [*expected, "probe_f1", "probe_accuracy", "probe_f1_baseline", "probe"]
    assert {name: measured[name] for name in expected} == pytest.approx(expected)
    assert measured["valid_loss"] > 0.1
    assert measured["probe"] == {"kept": measured["probe_f1"]}
    torch.manual_seed(99)
    assert validation.measure(trainee, trainee.objective, Accelerator(), tables) == measured


class _Processes:
    """Threads that stand for processes: what they reduce or gather is joined when all of them have come."""

    def __init__(self, world: int) -> None:
        self.world, self.barrier, self.shares = world, Barrier(world), [torch.empty(0)] * world

    def accelerator(self, rank: int) -> SimpleNamespace:
        def joined(value: Tensor) -> list[Tensor]:
            self.shares[rank] = value
            self.barrier.wait(timeout=300)
            shares = list(self.shares)
            self.barrier.wait(timeout=300)
            return shares

        return SimpleNamespace(
            process_index=rank,
            num_processes=self.world,
            device=CPU,
            is_main_process=rank == 0,
            reduce=lambda value, reduction: torch.stack(joined(value)).sum(dim=0),
            gather=lambda value: torch.cat(joined(value)),
        )


def test_processes_share_the_work_and_make_equal_calls(config: PretrainConfig, validation: Validation) -> None:
    trainee = _trainee(config)
    tables = token_tables([validation.corpus], CPU)
    calls: list[list[tuple[int, bool]]] = [[], []]
    processes = _Processes(2)

    def measure(rank: int) -> dict[str, Any]:
        def forward(batch: dict[str, Tensor], *, embed: bool = False) -> dict[str, Tensor]:
            assert not torch.is_grad_enabled()
            calls[rank].append((len(batch["tokens"]), embed))
            return trainee(batch, embed=embed)

        return validation.measure(forward, trainee.objective, processes.accelerator(rank), tables)

    with ThreadPoolExecutor(2) as pool:
        main, other = pool.map(measure, range(2))
    assert other == {}
    assert calls[0] == calls[1] == [(16, False)] * 3 + [(32, True)]
    alone = validation.measure(trainee, trainee.objective, Accelerator(), tables)
    assert main["probe"] == alone["probe"]
    numbers = [name for name in alone if name != "probe"]
    assert {name: main[name] for name in numbers} == pytest.approx({name: alone[name] for name in numbers}, rel=1e-5)


def test_datasets_count_alike_and_cells_come_in_turn(
    make_config: Configure, make_corpus: Callable[..., Corpus]
) -> None:
    corpus = make_corpus(sizes=(1000, 40, 100))
    config = make_config(objective=VIEWS, validation=ValidationSettings(every=1, batches=4))
    validation = Validation(config, corpus, ())
    assert validation.batches == 6
    rows = [validation.batch(number).cells.tolist() for number in range(6)]
    assert rows[:3] == [list(range(32))] * 3
    assert rows[3] == rows[5] == list(range(32, 64))
    assert rows[4] == [*range(32, 40), *range(24)]
    other_seed = Validation(replace(config, seed=5), corpus, ())
    assert other_seed.batch(3).cells.tolist() == rows[3]
    assert not np.array_equal(other_seed.batch(3).tokens, validation.batch(3).tokens)


def test_sentences_are_those_of_the_last_step_and_no_objective_is_in_its_first_steps(config: PretrainConfig) -> None:
    config = replace(config, objective=VIEWS, draws=20, late_draws=60, late_from=0.5)
    opened = open_validation(config, open_corpus(config.data))
    assert opened is not None
    batch = opened.batch(0)
    assert not batch.across
    assert batch.keep.sum(axis=1).max() > 60
