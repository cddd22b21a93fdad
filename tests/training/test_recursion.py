"""Deep supervision in runs: batches read in several steps, states carried on, resumed to equal bytes."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from uce.errors import UsageError
from uce.model.checkpoint import load_model
from uce.model.encoder import Recursion
from uce.training.costs import sample_batches, work
from uce.training.counting import count_bytes, count_flops
from uce.training.loop import pretrain
from uce.training.objectives.contrastive import ContrastiveSettings
from uce.training.objectives.masked import MaskedSettings
from uce.training.recursion import Reading, change_fields
from uce.training.settings import DataSettings, PretrainConfig, RecursionSettings, RunSettings, ValidationSettings
from uce.training.state import snapshot_path
from uce.training.stopping import Stopping
from uce.training.trainee import Trainee
from uce.training.trainer import Trainer

from .conftest import batch_of, tensors_of, toy_config

Configure = Callable[..., PretrainConfig]
MASKED = MaskedSettings(queries=64, hidden=(32, 16), dropout=0.0)
CONTRASTIVE = ContrastiveSettings(panel_least=0.1, fewest_genes=5, clip_steps=0)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def recursive(*, cycles: int = 4, supervision: int = 1, gradient: int = 0, **changes: Any) -> PretrainConfig:
    model = replace(toy_config().model, kind="recursive", cycles=cycles, norm="post")
    settings = RecursionSettings(supervision, gradient)
    return toy_config(**{"model": model, "recursion": settings, "objective": MASKED, **changes})


def _lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("objective", [MASKED, CONTRASTIVE])
def test_both_objectives_train_in_steps_of_supervision_and_say_how_the_state_changes(
    planted_files: DataSettings, tmp_path: Path, objective: Any
) -> None:
    config = recursive(supervision=2, data=planted_files, objective=objective, ema=0.9, accumulate=2)
    model = load_model(pretrain(config, out=tmp_path / "run"))
    assert model.config == config.model
    for line in _lines(tmp_path / "run"):
        assert len(line["state_change"]) == 3  # of four cycles, the first has no state before it
        assert all(change > 0 for change in line["state_change"])


def test_every_step_of_supervision_sees_the_same_cells_and_the_next_batch_others(
    planted_files: DataSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, list[int], bool]] = []
    part = Reading.part

    def watch(self: Reading, update: int, number: int, fresh: Any) -> Any:
        cells, batch = part(self, update, number, fresh)
        carried = self._recursion is not None and self._recursion.carried is not None
        seen.append((update, cells.samples.tolist(), carried))
        return cells, batch

    monkeypatch.setattr(Reading, "part", watch)
    run = RunSettings(workers=0, log_every=6, snapshot_every=6)
    pretrain(recursive(cycles=6, supervision=3, steps=6, data=planted_files, run=run), out=tmp_path / "run")
    samples = [cells for _, cells, _ in seen]
    assert samples[0] == samples[1] == samples[2]
    assert samples[3] == samples[4] == samples[5]
    assert set(samples[0]).isdisjoint(samples[3])
    assert [carried for _, _, carried in seen] == [False, True, True, False, True, True]


def test_a_run_that_is_cut_short_goes_on_to_equal_bytes(
    planted_files: DataSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = recursive(supervision=2, data=planted_files, ema=0.9)
    whole = pretrain(config, out=tmp_path / "whole")
    update = Trainer.update

    def asked_in_the_middle_of_a_batch(self: Trainer, step: int, batches: Any, stopping: Stopping) -> bool:
        if step == 4:
            stopping.requested = 15
        return update(self, step, batches, stopping)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", asked_in_the_middle_of_a_batch)
        with pytest.raises(KeyboardInterrupt):
            pretrain(config, out=tmp_path / "cut")
    assert snapshot_path(tmp_path / "cut", 6).is_dir()  # and not 5: its batch had one step more
    resumed = pretrain(config, out=tmp_path / "cut")
    for name in ("model.safetensors", "config.json", "README.md"):
        assert (whole / name).read_bytes() == (resumed / name).read_bytes()
    state = "training/state.safetensors"
    ours, theirs = (load_file(snapshot_path(tmp_path / name, 12) / state) for name in ("whole", "cut"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours | theirs)


def test_averaged_weights_count_updates_and_not_batches(planted_files: DataSettings, tmp_path: Path) -> None:
    seen: list[torch.Tensor] = []
    name = "blocks.0.attention.query.weight"
    with pytest.MonkeyPatch.context() as patch:
        from uce.training.optimizer import Average

        update = Average.update

        def watch(self: Average, parameters: Any, *, step: int) -> None:
            listed = list(parameters)
            seen.append(dict(listed)[name].detach().clone())
            update(self, listed, step=step)

        patch.setattr(Average, "update", watch)
        folder = pretrain(recursive(supervision=2, ema=0.8, data=planted_files, steps=4), out=tmp_path / "run")
    torch.manual_seed(0)
    expected = dict(Trainee(recursive(supervision=2)).encoder.named_parameters())[name].detach().clone()
    assert len(seen) == 4
    for step, weight in enumerate(seen):
        memory = min(0.8, (1 + step) / (10 + step))
        expected = memory * expected + (1 - memory) * weight
    assert torch.allclose(load_file(folder / "model.safetensors")[f"encoder.{name}"], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"supervision": 3}, r"cycles = 4: not a multiple of recursion.supervision = 3"),
        ({"supervision": 2, "gradient": 3}, r"recursion.gradient = 3: a step of supervision has 2 cycles"),
        ({"supervision": 2, "steps": 5}, r"steps = 5: a batch has recursion.supervision = 2 updates"),
        (
            {"supervision": 2, "validation": ValidationSettings(every=3)},
            r"validation.every = 3: a batch has recursion.supervision = 2 updates",
        ),
    ],
)
def test_settings_that_do_not_divide_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        recursive(**changes)


def test_a_change_that_grows_or_is_no_number_is_suspect() -> None:
    settling = change_fields({"state_change.0": torch.tensor([0.8, 0.4, 2.0])}, [])
    assert settling == {"state_change": [0.4, 0.2]}
    growing = change_fields({"state_change.0": torch.tensor([0.2, 0.4, 2.0])}, ["a doubt"])
    assert growing["suspect"][0] == "a doubt"
    assert "more in the last cycle (0.20) than in the second (0.10)" in growing["suspect"][1]
    assert "not finite" in change_fields({"state_change.0": torch.tensor([torch.nan, 1.0])}, [])["suspect"][0]
    assert change_fields({"loss": torch.tensor(1.0)}, []) == {}


def test_cycles_without_a_gradient_take_no_memory(corpus: Any) -> None:
    few, many = recursive(cycles=2), recursive(cycles=8, gradient=2)
    whole = recursive(cycles=8)
    batch = batch_of(corpus, few, 0)
    taken = [count_bytes(config, corpus, batch, kind="cpu")[1] for config in (few, many, whole)]
    assert taken[1] < 1.05 * taken[0]
    assert taken[2] > 2 * taken[0]


def test_what_is_computed_again_takes_less_memory_in_every_cycle_and_changes_no_bit(corpus: Any) -> None:
    def gradients(*, recompute: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        trainee = Trainee(recursive(cycles=3)).train()
        trainee.encoder.recompute = recompute
        tensors = tensors_of(corpus, recursive(), 0)
        trainee.objective.loss(trainee(tensors), tensors).backward()
        return [p.grad for p in trainee.parameters() if p.grad is not None]

    for one, other in zip(gradients(recompute=False), gradients(recompute=True), strict=True):
        assert torch.equal(one, other)
    batch = batch_of(corpus, recursive(), 0)
    saved, whole = (
        count_bytes(recursive(cycles=8, run=RunSettings(recompute=again)), corpus, batch, kind="cpu")[1]
        for again in (True, False)
    )
    assert saved < 0.4 * whole  # with the first block of the two alone it would be above a half


def test_work_is_reckoned_by_cycle(corpus: Any) -> None:
    config = recursive(cycles=3)
    batches = sample_batches(config, corpus)
    padded = sum(count_flops(config, corpus, batch) for batch in batches)
    assert work(config, corpus, batches).flops == pytest.approx(padded, rel=0.1)  # padding is not in it
    truncated = work(replace(config, recursion=RecursionSettings(gradient=1)), corpus, batches)
    assert truncated.flops == work(config, corpus, batches).flops
    assert truncated.flops < truncated.training_flops < 2 * truncated.flops + truncated.flops


def test_the_gradient_cache_is_exact_in_steps_of_supervision(corpus: Any) -> None:
    def gradients(cache: int) -> list[torch.Tensor]:
        config = recursive(supervision=2, objective=replace(CONTRASTIVE, cache_cells=cache))
        torch.manual_seed(0)
        trainee = Trainee(config).double().train()
        tensors = tensors_of(corpus, config, 0)
        tensors = {k: v.double() if v.is_floating_point() else v for k, v in tensors.items()}
        assert isinstance(trainee.encoder.recursion, Recursion)
        for _ in range(2):
            trainee.zero_grad()
            trainee.objective.loss(trainee(dict(tensors)), tensors).backward()
        return [p.grad for p in trainee.encoder.parameters() if p.grad is not None]

    for one, other in zip(gradients(0), gradients(7), strict=True):
        assert torch.allclose(one, other, atol=1e-10)
