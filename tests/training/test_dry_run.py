"""The dry run of training: what a run takes, from the corpus and the configuration, and nothing written."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import uce.training.dry_run
from uce.cli.main import main
from uce.config import write_config
from uce.errors import UsageError
from uce.training.corpus import Corpus
from uce.training.costs import training_flops_per_token
from uce.training.dry_run import DryRun, Passes, dry_run
from uce.training.settings import DataSettings, PretrainConfig
from uce.training.trainee import Trainee

Configure = Callable[..., PretrainConfig]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def in_memory(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> Corpus:
    monkeypatch.setattr(uce.training.dry_run, "open_corpus", lambda _settings: corpus)
    return corpus


@pytest.fixture
def found(in_memory: Corpus, make_config: Configure) -> DryRun:
    assert len(in_memory.datasets) == 2
    return dry_run(make_config(accumulate=2, steps=24), devices=4)


def test_the_command_says_what_a_run_takes_and_writes_nothing(
    planted_files: DataSettings,
    make_config: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write_config(make_config(data=planted_files), tmp_path / "config.yaml")
    assert main(["pretrain", str(tmp_path / "config.yaml"), "--dry-run", "--devices", "2"]) == 0
    said = capsys.readouterr().out
    for words in (
        "toy: 12 updates, 384 cells shown",
        "180 cells of 1 species (homo_sapiens), gene vectors planted",
        "set1  homo_sapiens, 60 cells: ",
        "87,716 learned: encoder 80,000, objective 7,716",
        "tokens a cell",
        "in training",
        "of each GPU of 2",
        "run.sharding=ddp run.recompute=true: ",
        "run.sharding=fsdp: ",
        "at 40 % of an H100's 989 TFLOP/s",
        "   8 GPUs  a minute at most; a minute at most",
        "cells/s on one cpu, measured: ",
    ):
        assert words in said
    assert said.index("set1  homo") < said.index("set0  homo")  # the smaller one comes round more often
    assert not list((tmp_path / "here").iterdir())


def test_numbers_follow_from_corpus_and_configuration(found: DryRun, in_memory: Corpus, make_config: Configure) -> None:
    assert found.cells == 500
    assert found.cells_shown == 24 * 32
    assert sum(one.share for one in found.datasets) == pytest.approx(1)
    assert sum(one.passes * one.cells for one in found.datasets) == pytest.approx(found.cells_shown)
    # In proportion to the root of 400 and 100 cells, to within a part of the 48.
    assert found.datasets[0].share == pytest.approx(2 / 3, abs=1 / 6)
    assert found.training_flops == pytest.approx(3 * found.forward_flops)
    # What the log reckons with.
    per_token = training_flops_per_token(make_config(accumulate=2, steps=24), in_memory, world=4)
    assert found.training_flops / found.tokens_per_cell == pytest.approx(per_token)
    told = json.loads(json.dumps(found.to_dict()))
    assert sorted(map(int, told["hours"])) == [1, 4, 8, 16]
    assert told["hours"]["16"]["run"] == pytest.approx(24 * 32 * found.training_flops / 0.4 / 989e12 / 16 / 3600)
    assert told["hours"]["1"]["pass"] == pytest.approx(500 * found.training_flops / 0.4 / 989e12 / 3600)
    assert told["memory"]["fsdp"]["recompute"]["total"] == found.memory["fsdp"]["recompute"].total


def test_a_cache_that_cannot_hold_a_window_of_every_dataset_is_named(found: DryRun, in_memory: Corpus) -> None:
    stored = sum(dataset.stored([(0, dataset.n_cells)]).count_nonzero() for dataset in in_memory.datasets)
    assert found.window_bytes == pytest.approx(6 * stored, abs=6)  # both datasets are smaller than a window
    assert "raise run.cache_gb" not in str(found)
    assert "it may keep: raise run.cache_gb" in str(replace(found, cache_bytes=0))


def test_memory_is_shared_as_weights_are(found: DryRun, make_config: Configure) -> None:
    learned = 4 * sum(p.numel() for p in Trainee(make_config()).parameters())
    block = 4 * sum(p.numel() for p in Trainee(make_config()).encoder.blocks[0].parameters())
    ddp, fsdp = found.memory["ddp"]["kept"], found.memory["fsdp"]["kept"]
    assert (ddp.weights, ddp.gradients, ddp.moments, ddp.average) == (learned, learned, 2 * learned, 0)
    assert (fsdp.weights, fsdp.gradients, fsdp.moments) == (learned // 4, learned // 4, 2 * learned // 4)
    assert ddp.exchange == learned
    # All but the blocks, two blocks, and gradients that wait for the last part of an update.
    assert fsdp.exchange == learned - 2 * block + 2 * block + learned
    assert ddp.vectors == fsdp.vectors == 4 * 32 * (4 + 3 + 600)
    assert ddp.activations == fsdp.activations > found.memory["ddp"]["recompute"].activations
    assert ddp.total == ddp.standing + ddp.batch + ddp.activations
    assert replace(ddp, update=10**9).total == ddp.standing + 10**9


def test_one_device_exchanges_nothing_and_what_takes_long_is_not_measured(
    in_memory: Corpus, make_config: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert in_memory
    monkeypatch.setattr(uce.training.dry_run, "_MOST_SECONDS", 0.0)
    found = dry_run(make_config(ema=0.9, batch_size=4, steps=2))
    assert list(found.memory) == ["ddp"]
    assert found.memory["ddp"]["kept"].exchange == 0
    assert found.memory["ddp"]["kept"].average == 4 * found.parameters.encoder
    assert found.cells_per_second is None
    assert "measured" not in str(found)


def test_what_this_machine_cannot_hold_is_not_measured(
    in_memory: Corpus, make_config: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert in_memory
    monkeypatch.setattr(uce.training.dry_run, "memory_bytes", lambda _device: 1000)
    assert dry_run(make_config(steps=2)).cells_per_second is None


def test_only_the_most_repeated_of_many_datasets_are_named(found: DryRun) -> None:
    many = tuple(Passes(f"set{i}", "homo_sapiens", 100, 0.04, 25.0 - i) for i in range(25))
    said = str(replace(found, datasets=many, training_flops=2e15))
    assert "25, the most repeated first\n              set0 " in said
    assert "set19  " in said
    assert "set20" not in said
    assert "and 5 more\n" in said
    assert "2,000.00 TFLOP in training" in said


@pytest.mark.parametrize("devices", [0, 5])
def test_devices_that_cannot_share_the_cells_are_refused(devices: int, make_config: Configure) -> None:
    with pytest.raises(UsageError, match=rf"--devices {devices}: batch_size / accumulate = 32 is not a multiple"):
        dry_run(make_config(), devices=devices)


def test_vectors_of_another_width_are_refused(in_memory: Corpus, make_config: Configure) -> None:
    assert in_memory
    config = make_config()
    with pytest.raises(UsageError, match=r"model.protein_dim = 64, but planted vectors are 32 wide"):
        dry_run(replace(config, model=replace(config.model, protein_dim=64)))
