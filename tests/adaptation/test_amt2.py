"""Labels of one set and cells of another in turns: what begins where, what is held to what, what is never read."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

import uce
from uce.adaptation.phases import Phase, distance, train_phases
from uce.adaptation.recipes.amt2 import Amt2Settings, alternate
from uce.config import read_config
from uce.errors import UceError, UsageError
from uce.model.checkpoint import load_model
from uce.training.corpus import Dataset
from uce.training.loop import pretrain
from uce.training.settings import PretrainConfig
from uce.training.state import read_state, snapshot_path
from uce.training.trainer import Trainer

SETTINGS = (
    "recipe.rounds=2",
    "recipe.source_steps=3",
    "recipe.unlabelled_steps=3",
    "recipe.labelled_steps=2",
    "recipe.momentum.queue=64",
    "recipe.momentum.dim=16",
    "recipe.momentum.fewest_genes=2",
    "batch_size=16",
    "run.workers=0",
    "run.snapshot_every=1",
    "optimizer.warmup=0",
)
ONE_ROUND = ("recipe.rounds=1",)
NAMES = ["phase-00-source", "phase-01-unlabelled", "phase-02-source", "phase-03-unlabelled", "phase-04-source"]


@pytest.fixture
def files(base: Path, make_file: Callable[..., Path]) -> dict[str, str]:
    """A model of planted gene vectors, labelled cells, and cells without any label."""
    source = make_file("source", cells=60, seed=1)
    target = make_file("target", cells=40, seed=2, without=("cell_type", "donor"))
    return {"base": str(base), "source": str(source), "target": str(target)}


def _adapt(files: dict[str, str], out: Path, settings: Sequence[str] = (), **changes: Any) -> Path:
    given = {"recipe": "amt2", "labels": "cell_type", "model": files["base"], "source": files["source"]}
    cells = changes.pop("cells", files["target"])
    return uce.adapt(cells, out=out, settings=(*SETTINGS, *settings), quiet=True, **(given | changes)).model


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(folder).encoder.state_dict()


def _equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_phases_follow_each_other_and_what_comes_out_is_a_model_like_any_other(
    files: dict[str, str], tmp_path: Path
) -> None:
    folder = _adapt(files, tmp_path / "run")
    model = load_model(folder)
    assert model.classifier is not None
    assert model.classifier.labels == ("a", "b", "c", "d")
    assert model.info["adapted_from"] == {
        "model": "base",
        "sha256": load_model(files["base"]).sha256,
        "rounds": 2,
        "steps_of_all": 13,
        "anchor": 10.0,
    }
    assert (folder / "trained_on" / "manifest.json").is_file()
    assert [path.name for path in sorted((tmp_path / "run").glob("phase-*"))] == NAMES
    ends = [tmp_path / "run" / name / folder.name for name in NAMES]
    assert _equal(_weights(folder), _weights(ends[-1]))
    configs = [read_config(PretrainConfig, end.parent / "config.yaml") for end in ends]
    # Each begins where the one before ended, a labelled one with the head of the labelled one before.
    assert [config.start for config in configs] == [files["base"], *map(str, ends[:-1])]
    heads = ["", "", str(ends[0].parent), "", str(ends[2].parent)]
    assert [config.start_heads for config in configs] == heads
    assert [config.optimizer.anchor for config in configs] == [0, 0, 10, 0, 10]
    assert [config.objective.name for config in configs] == ["supervised", "momentum"] * 2 + ["supervised"]
    assert len({config.seed for config in configs}) == 5
    table = pd.read_csv(tmp_path / "run" / "phases.csv")
    assert table["phase"].tolist() == NAMES
    assert table["moved"].notna().tolist() == [False, False, True, True, True]
    assert table.loc[3, "moved"] == pytest.approx(distance(ends[3], ends[1]))
    assert (table[["loss", "drift"]] > 0).all(axis=None)


def test_no_label_of_the_users_cells_is_read(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, asked = Dataset.labels, []

    def watch(self: Dataset, column: str) -> Any:
        asked.append(self.name)
        return labels(self, column)

    monkeypatch.setattr(Dataset, "labels", watch)
    without = _adapt(files, tmp_path / "without", ONE_ROUND)
    assert set(asked) == {"source"}
    # Whatever labels are there, the weights are the same.
    target = anndata.read_h5ad(files["target"])
    target.obs["cell_type"] = np.where(np.arange(40) % 2, "a", "z")
    (tmp_path / "other").mkdir()
    target.write_h5ad(tmp_path / "other" / "target.h5ad")
    beside = _adapt(files, tmp_path / "beside", ONE_ROUND, cells=tmp_path / "other" / "target.h5ad")
    assert set(asked) == {"source"}
    assert _equal(_weights(without), _weights(beside))


def test_a_killed_adaptation_goes_on_to_the_same_bytes(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = _adapt(files, tmp_path / "straight", ONE_ROUND)
    update, made = Trainer.update, 0

    def crash(self: Trainer, *rest: Any) -> bool:
        nonlocal made
        made += 1
        if made in (2, 6, 9):  # inside of the first, the second and the third phase
            raise RuntimeError("killed")
        return update(self, *rest)

    monkeypatch.setattr(Trainer, "update", crash)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="killed"):
            _adapt(files, tmp_path / "killed", ONE_ROUND)
    resumed = _adapt(files, tmp_path / "killed", ONE_ROUND)
    for name in ("model.safetensors", "classifier.safetensors", "config.json", "README.md"):
        assert (resumed / name).read_bytes() == (straight / name).read_bytes()
    for name, steps in zip(NAMES, (3, 3, 2), strict=False):
        one, two = (read_state(snapshot_path(tmp_path / run / name, steps)) for run in ("straight", "killed"))
        assert _equal(one, two)
    assert (tmp_path / "killed/phases.csv").read_text() == (tmp_path / "straight/phases.csv").read_text()


# ---- the anchor


@pytest.fixture
def labelled(files: dict[str, str], tmp_path: Path) -> Callable[..., list[Phase]]:
    """A function of alpha to all phases, on corpora that an adaptation made."""
    _adapt(files, tmp_path / "made", ONE_ROUND)
    configs = [read_config(PretrainConfig, tmp_path / "made" / name / "config.yaml") for name in NAMES[:2]]
    # Rates at which two steps go somewhere.
    labelled, unlabelled = (replace(one, start="", optimizer=replace(one.optimizer, lr=1e-2)) for one in configs)
    steps = {"source_steps": 2, "unlabelled_steps": 3, "labelled_steps": 3}

    def make(alpha: float) -> list[Phase]:
        return alternate(labelled, unlabelled, Amt2Settings(rounds=1, alpha=alpha, **steps))

    return make


def test_without_alpha_there_is_no_anchor_to_the_bit_and_with_it_the_last_unlabelled_phase_holds(
    labelled: Callable[..., list[Phase]], files: dict[str, str], tmp_path: Path
) -> None:
    free = train_phases(tmp_path / "free", labelled(0.0), start=files["base"])
    # The last labelled phase again, by a plain run that knows of no anchor.
    config = read_config(PretrainConfig, free[-1].parent / "config.yaml")
    plain = pretrain(replace(config, optimizer=replace(config.optimizer, anchor=0.0)), out=tmp_path / "plain")
    assert (plain / "model.safetensors").read_bytes() == (free[-1] / "model.safetensors").read_bytes()
    held = train_phases(tmp_path / "held", labelled(100.0), start=files["base"])  # all the way, at the full rate
    assert _equal(_weights(held[1]), _weights(free[1]))
    first, unlabelled, last = held
    assert distance(last, unlabelled) < 0.5 * distance(free[-1], unlabelled)
    assert distance(last, unlabelled) < 0.5 * distance(last, first)


# ---- mistakes


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["steps=5"], "steps=5: is for the recipe to choose"),
        (["objective.balanced=false"], "is for the recipe to choose"),
        (["adapters.rank=4"], "is for the recipe to choose"),
        (["recipe.rounds=0"], "recipe.rounds = 0"),
        (["recipe.alpha=-1"], "recipe.alpha = -1"),
        (["recipe.turns=3"], "unknown key turns"),
        (["recipe.momentum.queue=1"], "objective.queue = 1"),
        (["recipe.alpha=1e9"], "optimizer.anchor"),
    ],
)
def test_a_mistake_is_one_line(files: dict[str, str], tmp_path: Path, settings: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        _adapt(files, tmp_path / "run", settings)
    assert "\n" not in str(caught.value)


def test_a_source_and_its_labels_are_needed(files: dict[str, str], tmp_path: Path) -> None:
    for missing in ({"source": None}, {"labels": None}, {"labels": "nonsense"}):
        with pytest.raises(UceError):
            _adapt(files, tmp_path / "run", **missing)
