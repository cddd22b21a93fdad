"""Momentum contrast: the key encoder, the queue, who is told from whom, processes that agree, runs that go on."""

import math
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from uce.config import write_config
from uce.errors import UsageError
from uce.model.checkpoint import load_model
from uce.training.corpus import Corpus
from uce.training.counting import count_bytes, count_flops
from uce.training.loop import pretrain
from uce.training.objectives.keys import NOBODY, Keys, Queue
from uce.training.objectives.momentum import MomentumBatch, MomentumObjective, MomentumSettings
from uce.training.optimizer import build_optimizer
from uce.training.records import read_metrics
from uce.training.settings import DataSettings, OptimizerSettings, PretrainConfig, RunSettings, ValidationSettings
from uce.training.state import read_state, snapshot_path
from uce.training.stopping import Stopping
from uce.training.trainee import Trainee
from uce.training.trainer import Trainer

from .conftest import batch_of, cells_of, tensors_of, toy_config

Configure = Callable[..., PretrainConfig]
SETTINGS = MomentumSettings(panel_least=0.1, fewest_genes=5, queue=72, momentum=0.9, dim=16)
CELLS, PLACES, DIM = 6, 40, 16


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _keys(count: int, *, first: int = 0, origin: int = 3, seed: int = 0) -> Keys:
    """Keys of the rows `first`, `first + 1`, ... of a dataset."""
    drawn = torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    lengths = torch.linspace(-1, 1, count, dtype=torch.float64)
    return Keys(normalize(drawn, dim=1), torch.full((count,), origin), first + torch.arange(count), lengths)


def _objective(places: int = PLACES, *, temperature: float = 0.1) -> MomentumObjective:
    """One whose heads hand cell vectors on as they are, so that a test can say where queries and keys lie."""
    model = replace(toy_config().model, out_dim=DIM)
    settings = replace(SETTINGS, queue=places, temperature=temperature)
    objective = MomentumObjective(settings, model).double()
    objective.head = objective.key_head = nn.Identity()  # type: ignore[assignment]
    return objective


def _batch(*, origin: int = 3, rows: Tensor | None = None) -> dict[str, Tensor]:
    return {
        "cells": torch.arange(CELLS) if rows is None else rows,
        "valid": torch.ones(CELLS, dtype=torch.bool),
        "genes": torch.randint(50, 500, (2 * CELLS,), generator=torch.Generator().manual_seed(1)),
        "origin": torch.tensor(origin),
        "update": torch.tensor(0),
    }


def _compare(
    objective: MomentumObjective, queries: Tensor, keys: Tensor, batch: dict[str, Tensor] | None = None
) -> dict[str, Tensor]:
    return objective.compare(queries, keys, batch or _batch())


# ---- the queue


def test_the_oldest_keys_make_room_and_the_first_place_comes_after_the_last() -> None:
    queue = Queue(10, DIM).double()
    assert float(queue.filled) == 0
    batches = [_keys(4, first=4 * number, seed=number) for number in range(4)]
    for number, batch in enumerate(batches):
        queue.add(batch)
        rows = queue.rows[queue.origins != NOBODY]
        newest = range(max(0, 4 * (number + 1) - 10), 4 * (number + 1))
        assert sorted(rows.tolist()) == list(newest)
        assert float(queue.filled) == pytest.approx(min(1.0, 0.4 * (number + 1)))
    # 16 keys in 10 places: the third batch fills the last two places and the first two.
    assert queue.rows.tolist() == [10, 11, 12, 13, 14, 15, 6, 7, 8, 9]
    assert int(queue.next) == 6
    assert torch.equal(queue.vectors[2:6], batches[3].vectors)
    assert torch.equal(queue.lengths[6:8], batches[1].lengths[2:])


def test_a_batch_may_fill_the_whole_queue() -> None:
    queue = Queue(10, DIM).double()
    queue.add(_keys(10))
    queue.add(_keys(10, first=20, seed=1))
    assert queue.rows.tolist() == list(range(20, 30))
    assert int(queue.next) == 0


# ---- who is told from whom


def test_the_loss_is_that_of_its_formula() -> None:
    objective = _objective()
    objective.queue.add(waiting := _keys(30, first=100, seed=5))
    queries, keys = _keys(CELLS, seed=1).vectors, _keys(CELLS, seed=2).vectors
    right, wrong = (queries * keys).sum(dim=1) / 0.1, queries @ waiting.vectors.T / 0.1
    expected = -(right.exp() / (right.exp() + wrong.exp().sum(dim=1))).log().sum()
    sums = _compare(objective, queries, keys)
    torch.testing.assert_close(sums["loss"], expected)
    assert float(sums["views"]) == CELLS
    assert float(sums["loss_chance"]) == pytest.approx(CELLS * math.log(31))
    assert float(sums["negatives"]) == 30 * CELLS
    assert float(sums["filled"]) == pytest.approx(30 / PLACES)
    assert float(objective.loss(sums, _batch())) == pytest.approx(float(expected) / CELLS)


def test_random_keys_cost_what_random_keys_must() -> None:
    # ln(1 + K exp(1 / (2 d t^2))) for a query at cosine 0 to its own key: 8.42 for 4,096 keys of width 128.
    places, width, temperature = 4096, 128, 0.2
    settings = replace(SETTINGS, queue=places, dim=width, temperature=temperature)
    objective = MomentumObjective(settings, replace(toy_config().model, out_dim=width)).double()
    objective.head = objective.key_head = nn.Identity()  # type: ignore[assignment]
    drawn = torch.randn(places, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    lengths = torch.zeros(places, dtype=torch.float64)
    objective.queue.add(Keys(normalize(drawn, dim=1), torch.full((places,), 3), 100 + torch.arange(places), lengths))
    eye = torch.eye(width, dtype=torch.float64)
    sums = _compare(objective, eye[:CELLS], eye[CELLS : 2 * CELLS])
    assert float(sums["loss"] / sums["views"]) == pytest.approx(8.42, abs=0.02)


def test_keys_of_other_datasets_are_never_told_from() -> None:
    queries, keys = _keys(CELLS, seed=1).vectors, _keys(CELLS, seed=2).vectors
    alone, among = _objective(), _objective()
    for objective in (alone, among):
        objective.queue.add(_keys(10, first=100, seed=5))
    # The very queries as keys of another dataset: a loss that saw them would be far higher.
    among.queue.add(Keys(queries, torch.full((CELLS,), 4), 200 + torch.arange(CELLS), torch.zeros(CELLS)))
    one, two = _compare(alone, queries, keys), _compare(among, queries, keys)
    for name in one.keys() - {"filled"}:
        torch.testing.assert_close(one[name], two[name])


def test_a_cell_that_was_drawn_again_is_not_told_from_itself() -> None:
    queries, keys = _keys(CELLS, seed=1).vectors, _keys(CELLS, seed=2).vectors
    objective = _objective()
    _compare(objective, queries, keys)  # the first batch: its keys wait now
    assert objective.queue.rows[:CELLS].tolist() == list(range(CELLS))
    sums = _compare(objective, queries, keys)
    # Each cell is told from the five others, not from its own key of before.
    assert float(sums["negatives"]) == CELLS * (CELLS - 1)
    right, wrong = (queries * keys).sum(dim=1), queries @ keys.T
    others = ~torch.eye(CELLS, dtype=torch.bool)
    shares = (wrong / 0.1).exp().where(others, torch.zeros(())).sum(dim=1)
    torch.testing.assert_close(sums["loss"], -(right / 0.1 - ((right / 0.1).exp() + shares).log()).sum())


def test_before_there_is_a_key_nobody_takes_part() -> None:
    objective = _objective()
    queries = _keys(CELLS, seed=1).vectors.requires_grad_()
    sums = _compare(objective, queries, _keys(CELLS, seed=2).vectors)
    (gradient,) = torch.autograd.grad(objective.loss(sums, _batch()), queries)
    assert (gradient == 0).all()
    totals = {name: value.detach() for name, value in sums.items()}
    assert totals["views"] == totals["skipped"] == totals["loss"] == 0
    values = objective.fields(totals, step=1)
    assert "suspect" not in values
    assert all(math.isfinite(value) for value in values.values())


def test_cells_that_take_no_part_leave_no_key_and_have_no_loss() -> None:
    objective, batch = _objective(), _batch()
    objective.queue.add(_keys(10, first=100, seed=5))
    batch["valid"][[2, 5]] = False
    queries = _keys(CELLS, seed=1).vectors.requires_grad_()
    sums = _compare(objective, queries, _keys(CELLS, seed=2).vectors, batch)
    (gradient,) = torch.autograd.grad(sums["loss"], queries)
    assert (gradient != 0).any(dim=1).tolist() == batch["valid"].tolist()
    assert (float(sums["views"]), float(sums["skipped"])) == (4, 2)
    there = objective.queue.rows[10:16][objective.queue.origins[10:16] != NOBODY]
    assert there.tolist() == [0, 1, 3, 4]


def test_a_key_that_is_no_number_never_waits() -> None:
    objective = _objective()
    keys = _keys(CELLS, seed=2).vectors.clone()
    keys[3, 0] = math.nan
    _compare(objective, _keys(CELLS, seed=1).vectors, keys)
    assert objective.queue.vectors.isfinite().all()
    assert int(objective.queue.origins[3]) == NOBODY


def test_in_evaluation_cells_are_told_from_their_batch_and_nothing_moves() -> None:
    objective = _objective().eval()
    objective.queue.add(_keys(10, first=100, seed=5))
    before = {name: tensor.clone() for name, tensor in objective.state_dict().items()}
    queries, keys = _keys(CELLS, seed=1).vectors, _keys(CELLS, seed=2).vectors
    sums = _compare(objective, queries, keys)
    expected = torch.nn.functional.cross_entropy(queries @ keys.T / 0.1, torch.arange(CELLS), reduction="sum")
    torch.testing.assert_close(sums["loss"], expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in objective.state_dict().items())


def test_a_query_finds_its_key_and_length_alone_is_watched() -> None:
    objective, batch = _objective(), _batch()
    waiting = _keys(10, first=100, seed=5)
    objective.queue.add(waiting._replace(lengths=torch.full((10,), 9.0)))  # all far longer than any view
    batch["genes"] = torch.tensor([50, 60, 70, 80, 90, 100] * 2)
    queries = _keys(CELLS, seed=1).vectors
    sums = _compare(objective, queries, queries, batch)
    assert float(sums["recall"]) == float(sums["recall_length"]) == CELLS
    assert float(sums["recall_chance"]) == pytest.approx(CELLS / 11)
    assert float(sums["alignment"]) == pytest.approx(0, abs=1e-12)
    values = objective.fields({name: value.detach() for name, value in sums.items()}, step=1)
    assert any("number of genes" in doubt for doubt in values["suspect"])


# ---- the key encoder


def _shaken(trainee: Trainee, seed: int) -> dict[str, Tensor]:
    """Move encoder and head somewhere else; returns where they are, by the names of the slow copies."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in [*trainee.encoder.parameters(), *trainee.objective.head.parameters()]:  # type: ignore[union-attr]
            parameter.add_(torch.randn(parameter.shape, generator=random, dtype=parameter.dtype))
    return _fast(trainee)


def _fast(trainee: Trainee) -> dict[str, Tensor]:
    encoder = {f"key_encoder.{name}": value.clone() for name, value in trainee.encoder.state_dict().items()}
    head = trainee.objective.head.state_dict().items()  # type: ignore[union-attr]
    return encoder | {f"key_head.{name}": value.clone() for name, value in head}


def _slow(trainee: Trainee) -> dict[str, Tensor]:
    state = trainee.objective.state_dict().items()
    return {name: value.clone() for name, value in state if name.startswith("key_")}


@pytest.mark.parametrize("momentum", [0.0, 0.9, 1.0])
def test_the_key_encoder_is_that_of_the_closed_form(make_config: Configure, momentum: float) -> None:
    config = make_config(objective=replace(SETTINGS, momentum=momentum))
    config = replace(config, model=replace(config.model, positions="sinusoidal"))
    trainee = Trainee(config).double()
    objective = trainee.objective
    assert isinstance(objective, MomentumObjective)
    places = [_fast(trainee)]
    assert any(not torch.equal(value, places[0][name]) for name, value in _slow(trainee).items())  # drawn on its own
    for update in range(5):
        for _part in range(2):  # of one update
            objective.follow(trainee.encoder, torch.tensor(update))
        places.append(_shaken(trainee, update))
    for name, slow in _slow(trainee).items():
        expected = momentum**4 * places[0][name]
        for update in range(1, 5):
            expected = expected + (1 - momentum) * momentum ** (4 - update) * places[update][name]
        torch.testing.assert_close(slow, expected, rtol=1e-6, atol=1e-6)
    if momentum in (0, 1):  # exactly the encoder of the last update, or of the first
        reference = places[4 if momentum == 0 else 0]
        assert all(torch.equal(slow, reference[name]) for name, slow in _slow(trainee).items())


def test_keys_have_no_gradient_and_no_optimizer(corpus: Corpus, make_config: Configure) -> None:
    trainee = Trainee(make_config(objective=SETTINGS))
    optimizer = build_optimizer(trainee, OptimizerSettings())
    for part in (0, 1):
        batch = tensors_of(corpus, make_config(objective=SETTINGS), part)
        sums = trainee(batch)
        trainee.objective.loss(sums, batch).backward()
    objective = trainee.objective
    assert isinstance(objective, MomentumObjective)
    slow = [*objective.key_encoder.parameters(), *objective.key_head.parameters()]
    assert all(parameter.grad is None for parameter in slow)
    assert not objective.queue.vectors.requires_grad
    learned = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    fast = [*trainee.encoder.parameters(), *objective.head.parameters()]
    assert {id(parameter) for parameter in learned} == {id(parameter) for parameter in fast}
    assert all(parameter.grad is not None for parameter in fast)


def test_keys_are_told_apart_within_a_dataset_and_its_panels(
    make_corpus: Callable[..., Corpus], make_config: Configure
) -> None:
    config = make_config(objective=replace(SETTINGS, panel_updates=3), accumulate=2)
    corpus = make_corpus()
    batches = {part: batch_of(corpus, config, part) for part in range(12)}
    names = {part: cells_of(corpus, config, part).dataset.name for part in batches}
    seen: dict[tuple[str, int], set[int]] = {}
    shown: dict[tuple[str, int], list[set[int]]] = {}
    for part, batch in batches.items():
        assert isinstance(batch, MomentumBatch)
        assert int(batch.update) == part // 2
        key = (names[part], part // 6)
        seen.setdefault(key, set()).add(int(batch.origin))
        both = [set(batch.vectors[batch.tokens[half]].ravel()) for half in (slice(0, 16), slice(16, 32))]
        shown[key] = [one | two for one, two in zip(shown.get(key, [set(), set()]), both, strict=True)]
    # One number for the parts of a dataset that have the same panels, another for all others.
    assert len(seen) == 4
    assert all(len(numbers) == 1 for numbers in seen.values())
    assert len(set.union(*seen.values())) == 4
    assert min(set.union(*seen.values())) >= 0
    first_gene = corpus.datasets[0].vocabulary.first_gene
    for first, second in shown.values():
        assert not {gene for gene in first & second if gene >= first_gene}
    alone = batch_of(make_corpus(sizes=(400,)), config, 0)  # in other company
    assert isinstance(alone, MomentumBatch)
    assert {int(alone.origin)} == seen["set0", 0]
    thinned = make_config(objective=replace(SETTINGS, view="thin", panel_updates=3), accumulate=2)
    assert len({int(batch_of(corpus, thinned, part).origin) for part in batches}) == 2  # type: ignore[attr-defined]


def test_costs_are_counted_without_numbers(corpus: Corpus, make_config: Configure) -> None:
    config = make_config(objective=SETTINGS)
    batch = batch_of(corpus, config, 0)
    assert count_flops(config, corpus, batch) > 0
    assert min(count_bytes(config, corpus, batch, kind="cpu")) > 0


# ---- processes

CHILD = textwrap.dedent("""
    import os, sys, torch
    torch.set_num_threads(1)
    from safetensors.torch import load_file, save_file
    from uce.config import read_config
    from uce.training.settings import PretrainConfig
    from uce.training.trainee import Trainee
    folder, rank = sys.argv[1], int(sys.argv[2])
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.manual_seed(0)
    trainee = Trainee(read_config(PretrainConfig, f"{folder}/config.yaml")).double()
    wrapped = torch.nn.parallel.DistributedDataParallel(trainee)
    found = {}
    for part in range(3):
        batch = load_file(f"{folder}/{part}.{rank}")
        trainee.zero_grad()
        sums = wrapped(batch)
        trainee.objective.loss(sums, batch).backward()
        found |= {f"sum{part}.{key}": value.detach() for key, value in sums.items()}
    found |= {key: parameter.grad for key, parameter in trainee.named_parameters() if parameter.requires_grad}
    found |= {f"state.{key}": value for key, value in trainee.objective.queue.state_dict().items()}
    save_file(found, f"{folder}/{rank}.out")
    torch.distributed.destroy_process_group()
    os._exit(0)  # threads of the processes' group must not outlive the interpreter
""")


def _doubled(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: (value.double() if value.is_floating_point() else value).contiguous() for name, value in tensors.items()
    }


def test_two_processes_have_the_queue_and_the_gradient_of_one(
    make_corpus: Callable[..., Corpus], make_config: Configure, tmp_path: Path
) -> None:
    corpus = make_corpus(sizes=(400,))
    # 72 places and 32 cells: the queue is full in the third part, in the middle of its cells.
    config = make_config(objective=SETTINGS)
    write_config(config, tmp_path / "config.yaml")
    for part, rank in product(range(3), range(2)):
        save_file(_doubled(tensors_of(corpus, config, part, rank=rank, world=2)), tmp_path / f"{part}.{rank}")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path), str(rank)], env=environment, stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    torch.manual_seed(0)
    trainee = Trainee(config).double()
    sums = []
    for part in range(3):
        batch = _doubled(tensors_of(corpus, config, part))
        trainee.zero_grad()
        sums.append(trainee(batch))
        trainee.objective.loss(sums[-1], batch).backward()
    for child in children:
        said = child.communicate(timeout=300)[1]
        assert child.returncode == 0, said[-2000:]
    first, second = (load_file(tmp_path / f"{rank}.out") for rank in range(2))
    for name, parameter in trainee.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(first[name], parameter.grad, rtol=1e-6, atol=1e-12)
    for name, value in trainee.objective.queue.state_dict().items():  # type: ignore[union-attr,operator]
        torch.testing.assert_close(first[f"state.{name}"], value, rtol=1e-9, atol=1e-12)
        assert torch.equal(first[f"state.{name}"], second[f"state.{name}"])
    for part, name in product(range(3), sums[0]):
        shares = first[f"sum{part}.{name}"] + second[f"sum{part}.{name}"]
        if name in ("filled", "parts"):  # said by each process
            shares = shares / 2
        torch.testing.assert_close(shares, sums[part][name], rtol=1e-6, atol=1e-9, check_dtype=False)
    assert float(sums[2]["loss"].detach()) > 1


# ---- runs


def _run_config(make_config: Configure, planted_files: DataSettings, **changes: object) -> PretrainConfig:
    config = make_config(data=planted_files, objective=SETTINGS, steps=4, accumulate=2, ema=0.9, **changes)
    config = replace(config, run=RunSettings(workers=0, log_every=2, snapshot_every=1, keep_snapshots=10))
    return replace(config, model=replace(config.model, dropout=0.1))


def test_a_run_stopped_after_any_update_goes_on_to_the_same_weights_and_queue(
    planted_files: DataSettings, make_config: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _run_config(make_config, planted_files)
    pretrain(config, out=tmp_path / "straight")
    update = Trainer.update

    def stop(self: Trainer, step: int, batches: Any, stopping: Stopping) -> bool:
        update(self, step, batches, stopping)
        return True

    monkeypatch.setattr(Trainer, "update", stop)  # an update a call
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            pretrain(config, out=tmp_path / "parts")
    pretrain(config, out=tmp_path / "parts")
    one, two = (read_state(snapshot_path(tmp_path / name, 4)) for name in ("straight", "parts"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert int(one["weights.objective.queue.next"]) == 4 * 32 % 72
    assert not [name for name in one if name.startswith(("optimizer.objective.key_", "average.key_"))]


def test_a_run_writes_a_plain_model_and_measures_cells_it_was_not_trained_on(
    planted_files: DataSettings, make_config: Configure, tmp_path: Path
) -> None:
    config = _run_config(make_config, planted_files)
    config = replace(config, validation=ValidationSettings(every=2, batches=2, probe_cells=50))
    model = load_model(pretrain(config, out=tmp_path / "run"))
    assert model.config == config.model
    assert not [name for name in model.encoder.state_dict() if "key" in name and "key_value" not in name]
    last = list(read_metrics(tmp_path / "run"))[-1]
    assert 0.5 < last["queue_filled"] <= 1
    assert {"loss", "loss_chance", "recall", "recall_chance", "alignment", "effective_rank", "skipped_cells"} <= set(
        last
    )
    # 16 cells of a part: told from 15, those that take no part aside.
    assert last["valid_negatives"] <= 15
    assert math.log(10) < last["valid_loss_chance"] <= math.log(16) + 1e-6


def test_the_key_encoder_begins_as_the_model_that_the_run_begins_from(
    planted_files: DataSettings, make_config: Configure, tmp_path: Path
) -> None:
    first = pretrain(make_config(data=planted_files, steps=1), out=tmp_path / "first")
    config = make_config(data=planted_files, objective=replace(SETTINGS, momentum=1.0), start=str(first), steps=2)
    pretrain(config, out=tmp_path / "run")
    state, begun = read_state(snapshot_path(tmp_path / "run", 2)), load_model(first).encoder.state_dict()
    assert all(torch.equal(state[f"weights.objective.key_encoder.{name}"], value) for name, value in begun.items())
    assert any(not torch.equal(state[f"weights.encoder.{name}"], value) for name, value in begun.items())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"objective": replace(SETTINGS, queue=8)}, "objective.queue = 8: holds less than"),
        ({"run": RunSettings(sharding="fsdp")}, "Use 'ddp'"),
        ({"batch_size": 1}, "objective.name = 'momentum' tells such cells apart"),
        ({"data": DataSettings(corpus="corpus", thinning=0.5)}, "'momentum' thins its views itself"),
    ],
)
def test_what_cannot_work_is_refused(make_config: Configure, changes: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make_config(**{"objective": SETTINGS, **changes})


@pytest.mark.parametrize(
    ("name", "value"),
    [("queue", 1), ("panel_updates", 1), ("momentum", 1.1), ("momentum", math.nan), ("temperature", 0), ("dim", 1)],
)
def test_values_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"objective.{name} = "):
        replace(SETTINGS, **{name: value})
