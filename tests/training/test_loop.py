"""Runs: killed ones resume bit-equal, two processes agree with one, nothing of another run is touched."""

import json
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

import pytest
import torch
from safetensors.torch import load_file

from uce.config import write_config
from uce.errors import OutputExistsError, UsageError
from uce.model.checkpoint import load_model
from uce.training.corpus import Corpus
from uce.training.loop import Trainee, _tensors, pretrain
from uce.training.objectives.contrastive import ContrastiveSettings
from uce.training.objectives.masked import MaskedSettings
from uce.training.settings import DataSettings, PretrainConfig
from uce.training.state import newest_snapshot, snapshot_path

Configure = Callable[..., PretrainConfig]
CONTRASTIVE = ContrastiveSettings(panel_least=0.1, fewest_genes=5, clip_steps=0)

SCRIPT = textwrap.dedent("""
    import sys, torch
    torch.set_num_threads(1)
    from uce.config import read_config
    from uce.training.loop import pretrain
    from uce.training.settings import PretrainConfig
    pretrain(read_config(PretrainConfig, sys.argv[1]), out=sys.argv[2])
""")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def _losses(run: Path) -> list[tuple[Any, ...]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    clock = ("cells_per_second", "seconds", "seconds_left")
    return [tuple(value for name, value in line.items() if name not in clock) for line in lines]


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
    state = ["training/state.json", "training/state.safetensors"]
    snapshots = [f"checkpoints/step-{step:08d}/{name}" for step in (8, 12) for name in folder + state]
    assert found == sorted([*snapshots, *(f"toy/{name}" for name in folder), "config.yaml", "log.jsonl"])
    assert [step for step, *_ in _losses(tmp_path / "run")] == [2, 4, 6, 8, 10, 12]
    with pytest.raises(OutputExistsError, match=r"the run in .* is finished"):
        pretrain(config, out=tmp_path / "run")


def test_equal_runs_write_equal_bytes_and_labels_do_not_matter(
    planted_files: DataSettings, make_config: Configure, tmp_path: Path
) -> None:
    import anndata

    config = make_config(data=planted_files, steps=4)
    first = pretrain(config, out=tmp_path / "one")
    path = Path(planted_files.folder) / "set0.h5ad"
    adata = anndata.read_h5ad(path)
    adata.obs["cell_type"] = adata.obs["cell_type"].to_numpy()[::-1]
    adata.write_h5ad(path)
    second = pretrain(config, out=tmp_path / "two")
    for name in ("model.safetensors", "config.json", "genes.json", "README.md"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


@pytest.mark.parametrize(
    "changes",
    [
        {"ema": 0.9},
        {"objective": MaskedSettings(masking="panel", mask_fraction=0.5, head="tied", offset="dataset")},
        {"objective": CONTRASTIVE},
        {"objective": replace(CONTRASTIVE, cache_cells=10, clip_steps=9)},
    ],
)
def test_a_run_stopped_at_a_snapshot_resumes_bit_equal(
    planted_files: DataSettings,
    make_config: Configure,
    tmp_path: Path,
    changes: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = make_config(data=planted_files, **changes)
    config = replace(config, model=replace(config.model, dropout=0.1))
    straight = pretrain(config, out=tmp_path / "straight")

    def crash(self: object, step: int) -> None:
        if step == 10:
            raise KeyboardInterrupt
        update(self, step)

    from uce.training import loop

    update = loop._Trainer.update
    monkeypatch.setattr(loop._Trainer, "update", crash)
    with pytest.raises(KeyboardInterrupt):
        pretrain(config, out=tmp_path / "stopped")
    monkeypatch.setattr(loop._Trainer, "update", update)
    found = newest_snapshot(tmp_path / "stopped")
    assert found is not None
    assert found[1].step == 8
    resumed = pretrain(config, out=tmp_path / "stopped")
    _assert_equal(_weights(resumed), _weights(straight))
    state = "training/state.safetensors"
    last = snapshot_path(tmp_path / "straight", 12) / state
    _assert_equal(load_file(snapshot_path(tmp_path / "stopped", 12) / state), load_file(last))
    # Lines between snapshot and crash were taken back; a line of the log may span the restart.
    assert [step for step, *_ in _losses(tmp_path / "stopped")] == [2, 4, 6, 8, 10, 12]
    assert _losses(tmp_path / "stopped") == _losses(tmp_path / "straight")


def _environment(home: Path) -> dict[str, str]:
    return {**os.environ, "UCE_HOME": str(home), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}


def test_a_killed_process_resumes_bit_equal(
    planted_files: DataSettings, make_config: Configure, tmp_path: Path, uce_home: Path
) -> None:
    config = make_config(data=planted_files, steps=60, snapshot_every=3, log_every=3, ema=0.9)
    straight = pretrain(config, out=tmp_path / "straight")
    write_config(config, tmp_path / "config.yaml")
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "config.yaml"), str(tmp_path / "killed")]
    process = subprocess.Popen(command, env=_environment(uce_home), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while newest_snapshot(tmp_path / "killed") is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "toy").exists()
    _assert_equal(_weights(pretrain(config, out=tmp_path / "killed")), _weights(straight))


@pytest.mark.parametrize("masking", ["cell", "panel"])
def test_the_gradients_of_two_processes_average_to_that_of_one(
    corpus: Corpus, make_config: Configure, masking: str
) -> None:
    head = "tied" if masking == "panel" else "mlp"
    objective = MaskedSettings(masking=masking, queries=64, head=head, offset="dataset", dropout=0.0)  # type: ignore[arg-type]
    config = make_config(objective=objective)
    trainee = Trainee(config).double()

    def gradients(rank: int, world: int) -> list[torch.Tensor]:
        batch = config.objective.make_batch(corpus, config, 3, rank=rank, world=world)
        tensors = _tensors(batch, torch.device("cpu"))
        doubled = {key: value.double() if value.is_floating_point() else value for key, value in tensors.items()}
        sums = trainee(doubled)
        return list(torch.autograd.grad(trainee.objective.loss(sums, doubled), list(trainee.parameters())))

    for whole, first, second in zip(gradients(0, 1), gradients(0, 2), gradients(1, 2), strict=True):
        torch.testing.assert_close((first + second) / 2, whole, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    "objective",
    # Without dropout, which processes draw on their own.
    [MaskedSettings(queries=64, hidden=(32, 16), dropout=0.0), replace(CONTRASTIVE, form="clip", cache_cells=10)],
    ids=["masked", "contrastive"],
)
def test_two_processes_learn_what_one_learns_and_resume_bit_equal(
    planted_files: DataSettings,
    make_config: Configure,
    tmp_path: Path,
    uce_home: Path,
    objective: MaskedSettings | ContrastiveSettings,
) -> None:
    config = make_config(data=planted_files, steps=6, snapshot_every=4, objective=objective)
    pretrain(config, out=tmp_path / "alone")
    write_config(config, tmp_path / "config.yaml")
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [str(tmp_path / "script.py"), str(tmp_path / "config.yaml"), str(tmp_path / "two")]
    straight = _finish(command, uce_home, tmp_path / "two" / "toy")
    # Losses and not weights: rounding decides the sign of a gradient near zero, and Adam makes all of them as large.
    assert load_model(tmp_path / "two" / "toy").config == config.model
    for mine, theirs in zip(_losses(tmp_path / "alone"), _losses(tmp_path / "two"), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5, abs=2e-5)
    # As if killed after the fifth update: the newest snapshot is that of the fourth.
    for lost in (tmp_path / "two" / "toy", snapshot_path(tmp_path / "two", 6)):
        shutil.rmtree(lost)
    _assert_equal(_finish(command, uce_home, tmp_path / "two" / "toy"), straight)


def _finish(command: list[str], home: Path, model: Path) -> dict[str, torch.Tensor]:
    done = subprocess.run(command, env=_environment(home), capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr[:3000]
    return _weights(model)


def test_a_damaged_snapshot_is_passed_over_with_a_warning(
    planted_files: DataSettings, make_config: Configure, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pretrain(make_config(data=planted_files), out=tmp_path / "run")
    weights = snapshot_path(tmp_path / "run", 12) / "training" / "state.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    found = newest_snapshot(tmp_path / "run")
    assert found is not None
    assert found[1].step == 8
    assert "step-00000012: state.safetensors is damaged; continuing from an older snapshot" in caplog.text


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


def test_gene_vectors_of_another_width_are_refused(
    planted_files: DataSettings, make_config: Configure, tmp_path: Path
) -> None:
    config = make_config(data=planted_files)
    config = replace(config, model=replace(config.model, protein_dim=64))
    with pytest.raises(UsageError, match=r"model\.protein_dim = 64, but planted vectors are 32 wide"):
        pretrain(config, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("file", "name", "objective"),
    [("uce_mini", "uce-mini", MaskedSettings), ("contrastive", "contrastive", ContrastiveSettings)],
)
def test_the_configurations_that_come_along_can_be_read(file: str, name: str, objective: type) -> None:
    from uce.config import read_config

    path = Path(__file__).parents[2] / "configs" / f"{file}.yaml"
    config = read_config(PretrainConfig, path, overrides=["steps=5", "optimizer.lr=1e-4"])
    assert config.name == name
    assert isinstance(config.objective, objective)
    assert config.optimizer.lr == 1e-4
