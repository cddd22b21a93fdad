"""Adaptations from the user's side: what is learned, what is left as it was, what goes on, what is refused."""

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import uce
from uce.cli.main import main
from uce.errors import InputError, OutputExistsError, UsageError
from uce.model.checkpoint import load_model
from uce.training.trainer import Trainer

MakeFile = Callable[..., Path]
HELD = {"donor": ["D3", "D4"]}
QUICK = ("steps=9", "run.snapshot_every=3", "optimizer.warmup=2")


def adapt(file: Path, base: Path, out: Path, recipe: str, *settings: str, **options: Any) -> Any:
    if recipe != "contrastive":
        options = {"labels": "cell_type", "hold_out": HELD} | options
    return uce.adapt(file, out=out, recipe=recipe, model=base, settings=settings, quiet=True, **options)


def f1(scores: Any, vectors: str, reading: str) -> float:
    return next(x["macro_f1"] for x in scores.lines if (x["vectors"], x["reading"]) == (vectors, reading))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("recipe", ["lora", "full"])
def test_training_on_labels_tells_types_of_held_out_donors_better(
    recipe: str, base: Path, make_file: MakeFile, tmp_path: Path
) -> None:
    before = weights(base)
    done = adapt(make_file(cells=240), base, tmp_path / "run", recipe, "steps=50", "optimizer.lr=3e-3")
    assert f1(done.scores, "adapted", "knn") > f1(done.scores, "base", "knn") + 0.1
    assert f1(done.scores, "adapted", "classifier") > 0.8
    assert done.scores.learned == done.scores.asked == 120
    assert done.picture.read_bytes().startswith(b"\x89PNG")
    after = weights(base)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_adapted_model_is_a_model_like_any_other(base: Path, make_file: MakeFile, tmp_path: Path) -> None:
    file = make_file()
    done = adapt(file, base, tmp_path / "run", "lora", *QUICK, name="mine")
    model, origin = load_model(done.model), load_model(base)
    assert done.model == tmp_path / "run" / "mine"
    assert model.config == origin.config
    assert model.rule == origin.rule
    assert model.classifier is not None
    assert model.classifier.labels == ("a", "b", "c", "d")
    # What is written has no trace of adapters: its tensors are those of the base, some of them changed.
    ours, theirs = weights(done.model), weights(base)
    assert {name: tensor.shape for name, tensor in ours.items()} == {name: t.shape for name, t in theirs.items()}
    changed = {name for name in ours if not torch.equal(ours[name], theirs[name])}
    linear = ("attention.query", "attention.key_value", "attention.out", "expand", "contract")
    assert changed == {f"encoder.blocks.{block}.{name}.weight" for block in (0, 1) for name in linear}
    facts = model.info["adapted_from"]
    assert (facts["model"], facts["sha256"], facts["rank"]) == ("base", origin.sha256, 8)
    in_and_out = [64 + 64, 64 + 128, 64 + 64, 64 + 128, 128 + 64]  # of the five linear maps of a block
    assert facts["trained_parameters"] == 2 * 8 * sum(in_and_out) + 4 * 32 + 4 + 1
    assert model.info["licence"] == "MIT"
    assert "80 cells with one of 4 labels (cell_type)" in model.info["summary"]
    adata = anndata.read_h5ad(file)
    uce.embed(adata, model=done.model, quiet=True)
    assert np.isfinite(adata.obsm["X_uce"]).all()
    exported = uce.load_model(_export(done.model, tmp_path / "shared"))
    assert exported.classifier is not None
    np.testing.assert_array_equal(exported.classifier.weight, model.classifier.weight)


def _export(model: Path, out: Path) -> Path:
    from uce.training.export import export

    return export(model, out=out)


def test_a_probe_changes_no_weight_and_brings_a_classifier(base: Path, make_file: MakeFile, tmp_path: Path) -> None:
    done = adapt(make_file(), base, tmp_path / "run", "probe")
    ours, theirs = weights(done.model), weights(base)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert f1(done.scores, "adapted", "classifier") == f1(done.scores, "base", "classifier")
    assert f1(done.scores, "adapted", "knn") == f1(done.scores, "base", "knn")


def test_two_labels_are_enough(base: Path, make_file: MakeFile, tmp_path: Path) -> None:
    file = make_file()
    adata = anndata.read_h5ad(file)
    adata.obs["two"] = np.where(adata.obs["cell_type"].isin(["a", "b"]), "x", "y")
    adata.write_h5ad(file)
    done = adapt(file, base, tmp_path / "run", "probe", labels="two")
    assert f1(done.scores, "adapted", "classifier") == f1(done.scores, "base", "classifier")


@pytest.mark.parametrize("recipe", ["probe", "lora"])
def test_one_cell_of_each_of_two_types_is_enough(recipe: str, base: Path, make_file: MakeFile, tmp_path: Path) -> None:
    file = make_file()
    adata = anndata.read_h5ad(file)
    types = adata.obs["cell_type"].astype(str).to_numpy()
    learned = np.flatnonzero(adata.obs["donor"].isin(["D1", "D2"]))
    chosen = [learned[types[learned] == kind][0] for kind in ("a", "b")]
    types[np.setdiff1d(learned, chosen)] = "unknown"
    adata.obs["cell_type"] = types
    adata.write_h5ad(file)
    done = adapt(file, base, tmp_path / "run", recipe, *(QUICK if recipe == "lora" else ()))
    assert done.scores.learned == 2
    assert done.scores.new == int((types[adata.obs["donor"].isin(["D3", "D4"])] > "b").sum())
    assert {line["vectors"] for line in done.scores.lines} == {"base", "adapted"}  # two cells have no components


def test_nothing_is_scored_where_no_held_out_cell_has_a_label_that_was_learned(
    base: Path, make_file: MakeFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = make_file()
    adata = anndata.read_h5ad(file)
    adata.obs["cell_type"] = adata.obs["cell_type"].astype(str) + adata.obs["donor"].astype(str)
    adata.write_h5ad(file)
    done = uce.adapt(file, out=tmp_path / "run", recipe="probe", labels="cell_type", model=base, hold_out=HELD)
    assert (done.scores, done.picture) == (None, None)
    assert "nothing is scored, as no held-out cell has a vector and a label that was learned" in capsys.readouterr().err
    with pytest.raises(OutputExistsError, match="finished"):
        uce.adapt(file, out=tmp_path / "run", recipe="probe", labels="cell_type", model=base, hold_out=HELD)


def test_contrastive_needs_no_labels_and_reads_none(base: Path, make_file: MakeFile, tmp_path: Path) -> None:
    small = ("objective.panel_least=0.1", "objective.fewest_genes=5")
    labelled = adapt(make_file("mine"), base, tmp_path / "one", "contrastive", *QUICK, *small)
    bare = make_file("mine", without=("cell_type", "donor"))
    plain = adapt(bare, base, tmp_path / "two", "contrastive", *QUICK, *small)
    assert plain.scores is None
    assert load_model(plain.model).classifier is None
    ours, theirs = weights(labelled.model), weights(plain.model)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not all(torch.equal(ours[name], tensor) for name, tensor in weights(base).items())


@pytest.mark.parametrize("recipe", ["lora", "full"])
def test_a_killed_adaptation_goes_on_to_equal_bytes(
    recipe: str, base: Path, make_file: MakeFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make_file()
    whole = adapt(file, base, tmp_path / "whole", recipe, *QUICK)
    update = Trainer.update

    def dying(self: Trainer, step: int, *rest: Any) -> bool:
        if step == 5:
            raise KeyboardInterrupt
        return update(self, step, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", dying)
        with pytest.raises(KeyboardInterrupt):
            adapt(file, base, tmp_path / "cut", recipe, *QUICK)
    cut = adapt(file, base, tmp_path / "cut", recipe, *QUICK)
    for name in ("model.safetensors", "classifier.safetensors", "config.json", "genes.json", "README.md"):
        assert (whole.model / name).read_bytes() == (cut.model / name).read_bytes(), name
    assert cut.scores == whole.scores


def test_one_that_was_killed_before_it_was_scored_is_scored(
    base: Path, make_file: MakeFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dying(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    file = make_file()
    with monkeypatch.context() as patch:
        patch.setattr("uce.adaptation.adapt.score_held_out", dying)
        with pytest.raises(KeyboardInterrupt):
            adapt(file, base, tmp_path / "run", "lora", *QUICK)
    assert (tmp_path / "run" / "base-lora").is_dir()
    with pytest.raises(UsageError, match=r"holds a run with steps = 9, not 10"):
        adapt(file, base, tmp_path / "run", "lora", *QUICK, "steps=10")
    assert adapt(file, base, tmp_path / "run", "lora", *QUICK).scores is not None


def test_held_out_and_unlabelled_cells_are_not_trained_on(base: Path, make_file: MakeFile, tmp_path: Path) -> None:
    file = make_file()
    adata = anndata.read_h5ad(file)
    types = adata.obs["cell_type"].astype(str).to_numpy()
    types[:40], types[40:44] = "Unknown", ""
    adata.obs["cell_type"] = types
    adata.write_h5ad(file)
    done = adapt(file, base, tmp_path / "run", "lora", *QUICK)
    assert load_model(done.model).info["trained_on"][0]["cells"] == 160 // 2 - 22
    assert load_model(done.model).info["labels"] == ["a", "b", "c", "d"]
    assert done.scores.learned == 58


def test_nothing_is_overwritten_and_another_adaptation_is_refused(
    base: Path, make_file: MakeFile, tmp_path: Path
) -> None:
    file, out = make_file(), tmp_path / "run"
    adapt(file, base, out, "probe")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(OutputExistsError, match="the adaptation is finished"):
        adapt(file, base, out, "probe")
    with pytest.raises(UsageError, match="another hold_out"):
        adapt(file, base, out, "probe", hold_out={"donor": ["D1"]})
    with pytest.raises(UsageError, match="another cells"):
        adapt(make_file("other", seed=1), base, out, "probe")
    (tmp_path / "begun").mkdir()
    dead = {"host": socket.gethostname(), "pid": 2**22 + 1}  # as of a process that was killed right at the start
    (tmp_path / "begun" / ".adapt.lock").write_text(json.dumps(dead))
    assert adapt(file, base, tmp_path / "begun", "probe").model.is_dir()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="no adaptation"):
        adapt(file, base, tmp_path / "taken", "probe")
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_a_misspelt_setting_can_be_mended_in_the_same_folder(base: Path, make_file: MakeFile, tmp_path: Path) -> None:
    file = make_file()
    with pytest.raises(UsageError, match=r"unknown key stepz\. Did you mean steps\?"):
        adapt(file, base, tmp_path / "run", "lora", "stepz=3")
    assert adapt(file, base, tmp_path / "run", "lora", *QUICK).model.is_dir()


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        ("laura", {}, r"--recipe 'laura': one of .* is needed\. Did you mean lora\?"),
        ("lora", {"labels": None}, "learns from labels; name their obs column with --labels"),
        ("lora", {"labels": "cell_typ"}, r"no column 'cell_typ'\. Did you mean cell_type\?"),
        ("lora", {"labels": "donor", "hold_out": {"donor": ["D2", "D3", "D4"]}}, "fewer than two labels outside of"),
        ("lora", {"hold_out": {"donor": ["D9"]}}, "has no 'D9', but D1, D2, D3, D4"),
        ("lora", {"hold_out": {"donor": ["D1", "D2", "D3", "D4"]}}, "fewer than two labels outside"),
        ("lora", {"hold_out": {"donor": "D1"}}, "one column and its values are needed"),
        ("lora", {"source": "x.h5ad"}, "takes no --source"),
        ("lora", {"name": "checkpoints"}, "name = 'checkpoints'"),
        ("lora", {"name": "cells"}, "a folder of the run has that name"),
        ("lora", {"settings": ("steps=x",)}, "steps: 'x' found; a whole number is needed"),
        ("probe", {"settings": ("steps=5",)}, "the recipe probe trains no encoder"),
        ("lora", {"settings": ("start=uce-mini",)}, "follows from the options of uce adapt"),
        ("contrastive", {"labels": "cell_type", "hold_out": None}, "reads no labels. Leave it out"),
        ("contrastive", {"labels": None}, "held-out cells are scored by labels"),
    ],
)
def test_mistakes_are_one_line_each_and_leave_nothing(
    recipe: str, options: dict[str, Any], message: str, base: Path, make_file: MakeFile, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"labels": "cell_type", "hold_out": HELD} | options
    with pytest.raises((UsageError, InputError), match=message) as error:
        uce.adapt(make_file(), out=tmp_path / "run", recipe=recipe, model=base, quiet=True, **given)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_the_command_prints_the_model_and_the_scores(
    base: Path, make_file: MakeFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["adapt", str(make_file()), "--recipe", "lora", "--labels", "cell_type", "--model", str(base)]
    words += ["-o", str(tmp_path / "run"), "--hold-out", "donor=D3,D4", "steps=4", "optimizer.warmup=1"]
    assert main(words) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == [str(tmp_path / "run" / "base-lora"), str(tmp_path / "run" / "adapt.png")]
    assert "macro-F1 of 80 held-out cells, learned from 80" in said.err
    record = json.loads((tmp_path / "run" / "adapt.json").read_text())
    assert [line["vectors"] for line in record["scores"]["lines"]] == ["pca", "base", "base", "adapted", "adapted"]
    assert str(tmp_path) not in (tmp_path / "run" / "adapt.json").read_text()
    assert main(words) == 5


def test_what_the_model_was_trained_on_before_stays_known(base: Path, make_file: MakeFile, tmp_path: Path) -> None:
    first = adapt(make_file("first"), base, tmp_path / "one", "lora", *QUICK)
    for recipe, names in (("lora", ["second", "first"]), ("probe", ["first"])):
        settings = QUICK if recipe == "lora" else ()
        done = adapt(make_file("second", seed=1), first.model, tmp_path / recipe, recipe, *settings)
        manifest = json.loads((done.model / "trained_on" / "manifest.json").read_text())
        assert [dataset["dataset"] for dataset in manifest["datasets"]] == names
        assert "base was trained on" in manifest["lacking"]
