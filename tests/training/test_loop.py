"""Runs: killed ones resume bit-equal, two processes agree with one, nothing of another run is touched."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from uce.config import write_config
from uce.errors import InputError, ModelError, OutputExistsError, StorageError, UsageError
from uce.locks import lock
from uce.model.checkpoint import load_model
from uce.training.guard import SUSPECTS
from uce.training.loop import pretrain
from uce.training.objectives.contrastive import ContrastiveSettings
from uce.training.objectives.masked import MaskedObjective, MaskedSettings
from uce.training.objectives.supervised import SupervisedSettings
from uce.training.settings import (
    AdapterSettings,
    DataSettings,
    OptimizerSettings,
    PretrainConfig,
    RunSettings,
    ValidationSettings,
)
from uce.training.state import newest_snapshot, snapshot_path
from uce.training.stream import Cells, Stream
from uce.training.trainer import Trainer

from .conftest import build_planted_corpus
from .test_start import write_start

Configure = Callable[..., PretrainConfig]
CONTRASTIVE = ContrastiveSettings(panel_least=0.1, fewest_genes=5, clip_steps=0)
# Without dropout, which processes draw on their own.
MASKED = MaskedSettings(queries=64, hidden=(32, 16), dropout=0.0)

SCRIPT = textwrap.dedent("""
    import os, sys, torch
    torch.set_num_threads(1)
    from uce.config import read_config
    from uce.training.loop import pretrain
    from uce.training.settings import PretrainConfig
    pretrain(read_config(PretrainConfig, sys.argv[1], overrides=sys.argv[3:]), out=sys.argv[2])
    sys.stderr.flush()
    os._exit(0)  # threads of the processes' group must not outlive the interpreter
""")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def _state(run: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(snapshot_path(run, step) / "training" / "state.safetensors")


CLOCK = ("cells_per_second", "tokens_per_second", "padding", "waiting", "mfu", "seconds", "seconds_left")


def _lines(run: Path) -> list[dict[str, Any]]:
    """The log without what the clock says."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in CLOCK} for line in lines]


def _assert_equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_run_leaves_exactly_its_files_and_a_model_that_loads(
    planted_files: DataSettings, make_config: Configure, tmp_path: Path
) -> None:
    config = make_config(data=planted_files)
    model = load_model(pretrain(config, out=tmp_path / "run"))
    assert model.config == config.model
    assert model.rule == config.rule
    assert model.info["training"]["cells_shown"] == 12 * 32
    assert [dataset["dataset"] for dataset in model.info["trained_on"]] == ["set0", "set1"]
    assert model.info["not_trained_on"] == ["kept"]
    found = sorted(str(path.relative_to(tmp_path / "run")) for path in (tmp_path / "run").rglob("*") if path.is_file())
    folder = ["README.md", "config.json", "genes.json", "model.safetensors"]
    state = ["manifest.json", "training/state.json", "training/state.safetensors"]
    snapshots = [f"checkpoints/step-{step:08d}/{name}" for step in (8, 12) for name in folder + state]
    own = ["config.yaml", "curves.png", "metrics.jsonl"]
    manifest = [f"trained_on/{name}" for name in ("cells.npy", "manifest.json", "near.npy")]
    assert found == sorted([*snapshots, *(f"toy/{name}" for name in folder + manifest), *own])
    lines = _lines(tmp_path / "run")
    assert [line["step"] for line in lines] == [2, 4, 6, 8, 10, 12]
    assert {"excess", "loss", "loss_gene_only", "loss_rates", "lr", "grad_norm"} <= set(lines[0])
    with pytest.raises(OutputExistsError, match=r"the run in .* is finished"):
        pretrain(config, out=tmp_path / "run")


def test_equal_runs_write_equal_bytes_however_they_are_carried_out(
    planted_files: DataSettings, make_config: Configure, tmp_path: Path
) -> None:
    config = make_config(data=planted_files, steps=5, accumulate=2)
    first = pretrain(config, out=tmp_path / "one")
    moved = shutil.copytree(planted_files.corpus, tmp_path / "moved")
    other = RunSettings(workers=2, cache_gb=0, recompute=True, log_every=3, snapshot_every=2, keep_every=2)
    second = pretrain(replace(config, data=DataSettings(corpus=str(moved)), run=other), out=tmp_path / "two")
    for name in ("model.safetensors", "config.json", "genes.json", "README.md"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert [path.name for path in sorted((tmp_path / "two/checkpoints").iterdir())] == [
        f"step-0000000{step}" for step in (2, 4, 5)
    ]


def test_the_same_in_every_process_is_clipped_in_the_same_order_and_small_rates_are_logged(
    planted_files: DataSettings, make_config: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update, clipped = Trainer.update, []

    def watch(self: Trainer, *rest: Any) -> bool:
        clipped.extend(zip(self.clipped[1], self.trainee.objective.baselines(), strict=True))
        return update(self, *rest)

    monkeypatch.setattr(Trainer, "update", watch)
    rate = OptimizerSettings(lr=1.23456e-5, warmup=1)
    config = make_config(data=planted_files, steps=1, objective=MASKED, optimizer=rate)
    pretrain(config, out=tmp_path)
    assert clipped
    assert all(one is other for one, other in clipped)
    assert _lines(tmp_path)[0]["lr"] == 1.23456e-5


def test_validation_is_measured_and_changes_nothing(
    planted_files: DataSettings, make_config: Configure, tmp_path: Path
) -> None:
    config = make_config(data=planted_files, steps=6, ema=0.9)
    plain = pretrain(config, out=tmp_path / "plain")
    watched = replace(config, validation=ValidationSettings(every=3, batches=2, probe_cells=50))
    _assert_equal(_weights(pretrain(watched, out=tmp_path / "watched")), _weights(plain))
    lines = {line["step"]: line for line in _lines(tmp_path / "watched")}
    assert sorted(lines) == [2, 3, 4, 6]
    for step in (3, 6):
        assert lines[step]["valid_excess"] == pytest.approx(
            lines[step]["valid_loss_gene_only"] - lines[step]["valid_loss"], abs=1e-4
        )
        assert set(lines[step]["probe"]) == {"kept"}
    assert "valid_loss" not in lines[4]


@pytest.mark.parametrize(
    "changes",
    [
        {"ema": 0.9, "accumulate": 2, "run": RunSettings(workers=2, log_every=2, snapshot_every=4)},
        {"objective": MaskedSettings(masking="panel", mask_fraction=0.5, head="tied", offset="dataset")},
        # A line of the log spans the restart.
        {"objective": CONTRASTIVE, "run": RunSettings(workers=0, log_every=5, snapshot_every=4)},
        {"objective": replace(CONTRASTIVE, cache_cells=10, clip_steps=9), "accumulate": 4},
    ],
    ids=["masked", "tied", "contrastive", "cached"],
)
def test_a_run_stopped_after_a_snapshot_resumes_bit_equal(
    planted_files: DataSettings,
    make_config: Configure,
    tmp_path: Path,
    changes: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = make_config(data=planted_files, **changes)
    config = replace(config, model=replace(config.model, dropout=0.1))
    straight = pretrain(config, out=tmp_path / "straight")
    update = Trainer.update

    def crash(self: Trainer, step: int, *rest: Any) -> bool:
        if step == 10:
            raise RuntimeError("killed")
        return update(self, step, *rest)

    monkeypatch.setattr(Trainer, "update", crash)
    with pytest.raises(RuntimeError, match="killed"):
        pretrain(config, out=tmp_path / "stopped")
    monkeypatch.setattr(Trainer, "update", update)
    found = newest_snapshot(tmp_path / "stopped")
    assert found is not None
    assert found[1].step == 8
    resumed = pretrain(config, out=tmp_path / "stopped")
    _assert_equal(_weights(resumed), _weights(straight))
    _assert_equal(_state(tmp_path / "stopped", 12), _state(tmp_path / "straight", 12))
    # Lines between snapshot and crash were taken back.
    assert _lines(tmp_path / "stopped") == _lines(tmp_path / "straight")


def _environment(home: Path) -> dict[str, str]:
    return {**os.environ, "UCE_HOME": str(home), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}


def test_a_killed_process_resumes_bit_equal(
    planted_files: DataSettings, make_config: Configure, tmp_path: Path, uce_home: Path
) -> None:
    run = RunSettings(workers=2, log_every=3, snapshot_every=3)
    config = make_config(data=planted_files, steps=60, ema=0.9, accumulate=2, run=run)
    straight = pretrain(config, out=tmp_path / "straight")
    write_config(config, tmp_path / "config.yaml")
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "config.yaml"), str(tmp_path / "killed")]
    process = subprocess.Popen(command, env=_environment(uce_home), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list((tmp_path / "killed" / "checkpoints").glob("step-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "toy").exists()
    _assert_equal(_weights(pretrain(config, out=tmp_path / "killed")), _weights(straight))


@pytest.fixture
def two_processes(uce_home: Path, tmp_path: Path) -> Callable[..., dict[str, torch.Tensor]]:
    """Run the configuration in `config.yaml` on two processes; returns the weights of the model."""

    def run(name: str, *overrides: str) -> dict[str, torch.Tensor]:
        (tmp_path / "script.py").write_text(SCRIPT)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        command += [str(tmp_path / "script.py"), str(tmp_path / "config.yaml"), str(tmp_path / name), *overrides]
        environment = _environment(uce_home)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[:3000]
        return _weights(tmp_path / name / "toy")

    return run


@pytest.mark.parametrize(
    "objective", [MASKED, replace(CONTRASTIVE, form="clip", cache_cells=10)], ids=["masked", "contrastive"]
)
def test_two_processes_learn_what_one_learns_and_resume_bit_equal(
    planted_files: DataSettings,
    make_config: Configure,
    tmp_path: Path,
    objective: MaskedSettings | ContrastiveSettings,
    two_processes: Callable[..., dict[str, torch.Tensor]],
) -> None:
    run = RunSettings(workers=0, log_every=1, snapshot_every=4)
    validation = ValidationSettings(every=3, batches=2, probe_cells=50)
    config = make_config(data=planted_files, steps=6, accumulate=2, objective=objective, run=run, validation=validation)
    # Averaged weights are put in the place of the others while a run validates.
    config = replace(config, ema=0.9)
    pretrain(config, out=tmp_path / "alone")
    write_config(config, tmp_path / "config.yaml")
    straight = two_processes("two")
    # Losses and not weights: rounding decides the sign of a gradient near zero, and Adam makes all of them as large.
    for mine, theirs in zip(_lines(tmp_path / "alone"), _lines(tmp_path / "two"), strict=True):
        for name in ("loss", "lr", "grad_norm", *(["valid_loss"] if "valid_loss" in mine else [])):
            assert mine[name] == pytest.approx(theirs[name], rel=1e-4), (mine["step"], name)
        assert mine.keys() == theirs.keys()
    # Sharded over the processes (FSDP2) the same is learned.
    two_processes("sharded", "run.sharding=fsdp", "run.recompute=true")
    for mine, theirs in zip(_lines(tmp_path / "sharded"), _lines(tmp_path / "two"), strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-5), mine["step"]
    if isinstance(objective, MaskedSettings):
        # As if killed after the fifth update: the newest snapshot is that of the fourth.
        for lost in (tmp_path / "two" / "toy", snapshot_path(tmp_path / "two", 6)):
            shutil.rmtree(lost)
        _assert_equal(two_processes("two"), straight)


@pytest.mark.parametrize("way", ["adapters", "anchor"])
def test_two_processes_train_on_from_a_model_as_one_does(
    way: str,
    planted_files: DataSettings,
    make_config: Configure,
    tmp_path: Path,
    two_processes: Callable[..., dict[str, torch.Tensor]],
) -> None:
    held = OptimizerSettings(lr=1e-3, warmup=3, anchor=100.0)
    changes = {"optimizer": held} if way == "anchor" else {"adapters": AdapterSettings(rank=4)}
    labels = SupervisedSettings(classes=("0", "1", "2", "3"), cells=(40, 40, 40, 40))
    run = RunSettings(workers=0, log_every=1)
    start = str(write_start(tmp_path / "start"))
    config = make_config(data=planted_files, steps=4, start=start, objective=labels, run=run, **changes)
    pretrain(config, out=tmp_path / "alone")
    write_config(config, tmp_path / "config.yaml")
    two_processes("two", *(["run.sharding=fsdp"] if way == "anchor" else []))
    for mine, theirs in zip(_lines(tmp_path / "alone"), _lines(tmp_path / "two"), strict=True):
        for name in ("loss", "loss_chance", "drift"):
            assert mine[name] == pytest.approx(theirs[name], rel=1e-3), (mine["step"], name)
    assert mine["drift"] > 1e-3


def test_a_run_goes_on_in_another_number_of_processes(
    planted_files: DataSettings,
    make_config: Configure,
    tmp_path: Path,
    two_processes: Callable[..., dict[str, torch.Tensor]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = RunSettings(workers=0, log_every=1, snapshot_every=3)
    config = make_config(data=planted_files, steps=6, objective=MASKED, run=run)
    pretrain(config, out=tmp_path / "alone")
    write_config(config, tmp_path / "config.yaml")
    two_processes("two")
    for lost in (tmp_path / "two" / "toy", snapshot_path(tmp_path / "two", 6)):
        shutil.rmtree(lost)
    pretrain(config, out=tmp_path / "two")
    assert "1 process(es) now, 2 before: the same cells come in the same order" in caplog.text
    for mine, theirs in zip(_lines(tmp_path / "alone"), _lines(tmp_path / "two"), strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-4), mine["step"]


def _finish_to(step: int, run: Path) -> None:
    """As if a run had been killed after so many updates."""
    shutil.rmtree(run / "toy")
    for folder in (run / "checkpoints").iterdir():
        if int(folder.name[-8:]) > step:
            shutil.rmtree(folder)


def test_a_run_can_go_on_from_an_older_snapshot_and_the_later_ones_are_kept_aside(
    planted_files: DataSettings, make_config: Configure, tmp_path: Path
) -> None:
    config = make_config(data=planted_files)
    straight = _weights(pretrain(config, out=tmp_path / "run"))
    shutil.rmtree(tmp_path / "run" / "toy")
    with pytest.raises(UsageError, match=r"no snapshot after 9 updates\. There is 8, 12"):
        pretrain(config, out=tmp_path / "run", resume=9)
    with pytest.raises(OutputExistsError, match="holds an unfinished run"):
        pretrain(config, out=tmp_path / "run", resume="never")
    _assert_equal(_weights(pretrain(config, out=tmp_path / "run", resume=8)), straight)
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert [name.split(".")[0] for name in names] == ["step-00000008", "step-00000012", "step-00000012"]


def test_a_damaged_snapshot_is_passed_over_and_the_run_ends_as_it_would_have(
    planted_files: DataSettings, make_config: Configure, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = make_config(data=planted_files)
    straight = _weights(pretrain(config, out=tmp_path / "run"))
    shutil.rmtree(tmp_path / "run" / "toy")
    weights = snapshot_path(tmp_path / "run", 12) / "training" / "state.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    _assert_equal(_weights(pretrain(config, out=tmp_path / "run")), straight)
    assert "state.safetensors has changed; looking for an older snapshot" in caplog.text


def test_another_corpus_is_refused_unless_it_is_allowed(
    planted_files: DataSettings, make_config: Configure, tmp_path: Path
) -> None:
    config = make_config(data=planted_files)
    pretrain(config, out=tmp_path / "run")
    _finish_to(8, tmp_path / "run")
    manifest = Path(planted_files.corpus).parent / "manifest.csv"
    rows = pd.read_csv(manifest)
    rows[rows["dataset"] != "set1"].to_csv(manifest, index=False)
    build_planted_corpus(manifest.parent)
    with pytest.raises(UsageError, match=r"was trained on corpus .* this one is .* --allow-corpus-change"):
        pretrain(config, out=tmp_path / "run")
    model = load_model(pretrain(config, out=tmp_path / "run", allow_corpus_change=True))
    assert [dataset["dataset"] for dataset in model.info["trained_on"]] == ["set0"]


def test_a_run_of_other_settings_is_not_continued(
    planted_files: DataSettings, make_config: Configure, tmp_path: Path
) -> None:
    config = make_config(data=planted_files)
    (tmp_path / "run").mkdir()
    write_config(config, tmp_path / "run" / "config.yaml")
    changed = replace(config, optimizer=replace(config.optimizer, lr=0.5))
    with pytest.raises(UsageError, match=r"holds a run with optimizer\.lr = 0\.001, not 0\.5"):
        pretrain(changed, out=tmp_path / "run")
    with pytest.raises(UsageError, match=r"holds a run with objective\.name = 'masked', not 'contrastive'"):
        pretrain(replace(config, objective=CONTRASTIVE), out=tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text("steps: [")
    with pytest.raises(UsageError, match=r"config\.yaml: not readable as YAML .* cannot continue the run"):
        pretrain(config, out=tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run": RunSettings(sharding="fsdp")}, r"run\.sharding = 'fsdp' shares a model among processes, and there is"),
        (
            {"validation": ValidationSettings(every=2, split="test")},
            r"no dataset has cells of validation\.split = 'test'",
        ),
        ({"run": RunSettings(trackers=("wandb",))}, r"run\.trackers names wandb, which is not installed"),
    ],
)
def test_what_cannot_work_is_said_in_a_line(
    planted_files: DataSettings,
    make_config: Configure,
    tmp_path: Path,
    changes: dict[str, object],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UsageError, match=message):
        pretrain(make_config(data=planted_files, **changes), out=tmp_path / "run")


def test_a_start_that_is_refused_does_not_stand_in_the_way_of_the_next(
    planted_files: DataSettings, make_config: Configure, tmp_path: Path
) -> None:
    config = make_config(data=planted_files, steps=2)
    with pytest.raises(UsageError, match=r"no dataset has cells of validation\.split"):
        pretrain(replace(config, validation=ValidationSettings(every=2, split="test")), out=tmp_path / "run")
    assert pretrain(config, out=tmp_path / "run").is_dir()
    with pytest.raises(OutputExistsError, match=r"holds corpus\.json, so it is a corpus"):
        pretrain(config, out=planted_files.corpus)
    with pytest.raises(OutputExistsError, match=r"holds config\.json, so it is a model"):
        pretrain(config, out=tmp_path / "run" / "toy")


@pytest.mark.parametrize("name", ["../elsewhere", "", "a/b", ".hidden", "checkpoints", "x" * 200])
def test_a_name_that_is_no_folder_of_the_run_is_refused(make_config: Configure, name: str) -> None:
    with pytest.raises(UsageError, match=r"name = .*: letters, digits"):
        make_config(name=name)


def test_parts_beyond_memory_are_refused_before_they_are_made(
    planted_files: DataSettings, make_config: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Stream.cells

    def few(self: Stream, part: int) -> Cells:
        cells = read(self, part)
        assert len(cells.rows) <= 256
        return cells

    monkeypatch.setattr(Stream, "cells", few)
    with pytest.raises(UsageError, match=r"for 100000000 cells at a time\. Use accumulate=2 or more"):
        pretrain(make_config(data=planted_files, batch_size=10**8), out=tmp_path / "run")


def test_where_torch_cannot_compile_a_run_goes_on_without_and_says_so_once(
    planted_files: DataSettings,
    make_config: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no compiler\nand a long story")

    monkeypatch.setattr(torch, "compile", fail)
    config = make_config(data=planted_files, steps=2, run=RunSettings(workers=0, compile=True))
    pretrain(config, out=tmp_path / "run")
    assert caplog.text.count("torch cannot compile here (no compiler); going on without") == 1


def test_a_second_start_in_one_folder_is_refused(
    planted_files: DataSettings, make_config: Configure, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    with (
        lock(tmp_path / "run" / ".lock"),
        pytest.raises(StorageError, match=r"run/\.lock: process \d+ on .* is writing there"),
    ):
        pretrain(make_config(data=planted_files), out=tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_number_of_processes_that_is_not_there_is_refused(
    planted_files: DataSettings, make_config: Configure, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"1 process\(es\), 2 were expected"):
        pretrain(make_config(data=planted_files), out=tmp_path / "run", processes=2)
    with pytest.raises(UsageError, match=r"batch_size = 32: not a multiple of accumulate = 5"):
        make_config(data=planted_files, accumulate=5)


def test_gene_vectors_of_another_width_or_a_damaged_corpus_are_refused(
    planted_files: DataSettings, make_config: Configure, tmp_path: Path, uce_home: Path
) -> None:
    config = make_config(data=planted_files)
    wide = replace(config, model=replace(config.model, protein_dim=64))
    with pytest.raises(UsageError, match=r"model\.protein_dim = 64, but planted vectors are 32 wide"):
        pretrain(wide, out=tmp_path / "run")
    shard = next(Path(planted_files.corpus).glob("data/set0/shard-*.zarr"))
    lost = next(path for path in shard.rglob("c/0") if "X" in path.parts)
    lost.rename(tmp_path / "lost")
    with pytest.raises(InputError, match="missing"):
        pretrain(config, out=tmp_path / "run")
    (tmp_path / "lost").rename(lost)
    (uce_home / "genes" / "planted" / "homo_sapiens.h5ad").unlink()
    with pytest.raises(ModelError, match="homo_sapiens"):
        pretrain(config, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def _poison(monkeypatch: pytest.MonkeyPatch, steps: set[int]) -> None:
    """Make the losses of some updates NaN."""
    update, loss, at = Trainer.update, MaskedObjective.loss, []

    def numbered(self: Trainer, step: int, *rest: Any) -> bool:
        at.append(step)
        return update(self, step, *rest)

    def poisoned(self: MaskedObjective, *rest: Any) -> torch.Tensor:
        value = loss(self, *rest)
        return value * float("nan") if at and at[-1] in steps else value

    monkeypatch.setattr(Trainer, "update", numbered)
    monkeypatch.setattr(MaskedObjective, "loss", poisoned)


def test_an_update_that_is_not_finite_is_left_out_and_its_cells_are_named(
    planted_files: DataSettings,
    make_config: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    _poison(monkeypatch, {4})
    run = RunSettings(workers=0, log_every=1, snapshot_every=1, keep_snapshots=20)
    config = make_config(data=planted_files, steps=6, run=run)
    pretrain(config, out=tmp_path / "run")
    four, five = _state(tmp_path / "run", 4), _state(tmp_path / "run", 5)
    _assert_equal(*({n: t for n, t in state.items() if not n.startswith("window.")} for state in (four, five)))
    (record,) = [json.loads(line) for line in (tmp_path / "run" / SUSPECTS).read_text().splitlines()]
    assert record["step"] == 5
    assert record["dataset"] in ("set0", "set1")
    assert len(record["rows"]) == 32
    assert "step 5: left out (loss nan" in caplog.text
    assert [line["step"] for line in _lines(tmp_path / "run") if "loss" in line] == [1, 2, 3, 4, 6]


def test_three_updates_in_a_row_that_are_not_finite_end_the_run_with_a_line(
    planted_files: DataSettings, make_config: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logging.getLogger("uce").setLevel(logging.ERROR)
    _poison(monkeypatch, {4, 5, 6})
    with pytest.raises(UsageError, match=r"step 7 \(set\d\): loss or gradient not finite, 3 updates in a row\. Lower"):
        pretrain(make_config(data=planted_files), out=tmp_path / "run")
    found = newest_snapshot(tmp_path / "run")
    assert found is not None
    assert found[1].step == 4
