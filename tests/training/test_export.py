"""`uce export`: a run in, a model folder that stands alone out, its card filled from the run."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from uce.cli.main import main
from uce.config import write_config
from uce.errors import InputError, ModelError, OutputExistsError, StorageError, UsageError
from uce.model.checkpoint import load_model, save_model
from uce.model.encoder import Encoder
from uce.model.folders import FILES
from uce.training.corpus import Corpus
from uce.training.export import export
from uce.training.loop import pretrain
from uce.training.records import Metrics, describe
from uce.training.settings import DataSettings, PretrainConfig, ValidationSettings
from uce.training.state import Progress, add_state, seal, snapshot_path

MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(make_config: Callable[..., PretrainConfig], make_corpus: Callable[[], Corpus], tmp_path: Path) -> MakeRun:
    """A function (snapshots, finished) -> the folder of a run of 12 steps, every snapshot with weights of its own."""
    corpus = make_corpus()

    def write(folder: Path, config: PretrainConfig, step: int) -> None:
        torch.manual_seed(step)
        record = {
            "species": "homo_sapiens",
            "encoder": "planted",
            "dim": 32,
            "sha256": "ab12",
            "encoder_sha256": "cd34",
        }
        save_model(
            folder,
            encoder=Encoder(config.model),
            rule=config.rule,
            specials=corpus.specials,
            gene_encoder="planted",
            gene_tables=[record],
            info=describe(config, corpus, step),
        )

    def make(*, snapshots: tuple[int, ...] = (4, 8), finished: bool = False, **changes: object) -> Path:
        run = tmp_path / "run"
        config = make_config(**({"limits": ("Not for clinical use.",), "licence": "MIT"} | changes))
        (run / "checkpoints").mkdir(parents=True)
        write_config(config, run / "config.yaml")
        for step in snapshots:
            write(snapshot_path(run, step), config, step)
            add_state(snapshot_path(run, step), {"weights.x": torch.ones(2)}, Progress(step, 1.0))
            seal(snapshot_path(run, step))
        if finished:
            write(run / config.name, config, config.steps)
        for step, excess in zip(range(2, 13, 2), (0.0, 0.25, 0.5, 0.375, 0.75, 0.625), strict=True):
            measured = {"valid_excess": excess / 2, "probe_f1": 0.5, "probe": {"kept": 0.5}} if step % 4 == 0 else {}
            line = {"step": step, "loss": 1 / step, "excess": excess, **measured, "lr": 0.1, "seconds": step / 2}
            Metrics(run).write(line)
        with (run / "metrics.jsonl").open("a") as stream:
            stream.write('{"step": 13, "lo')
        return run

    return make


def test_a_finished_run_becomes_a_folder_of_four_files_with_the_same_weights(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(finished=True)
    out = export(run, out=tmp_path / "shared")
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)
    assert (out / "model.safetensors").read_bytes() == (run / "toy" / "model.safetensors").read_bytes()
    assert load_model(out).sha256 == load_model(run / "toy").sha256
    assert export(run, out=tmp_path / "again", name="shared").is_dir()
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()


def test_the_card_is_filled_from_the_run(make_run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text('{"macro-F1": 0.61, "baseline": {"PCA": 0.67}}')
    out = export(make_run(finished=True), out=tmp_path / "shared", scores=tmp_path / "scores.json", licence="CC-BY-4.0")
    card = (out / "README.md").read_text()
    for fact in (
        "# shared\n",
        "- steps: 12",
        "- cells_shown: 384",
        "- seconds: 6.0",
        "- name: masked",
        "- excess: first 0.0, last 0.625, lowest 0.0, highest 0.75",
        "- logged: from step 2 to 12",
        "## Validation\n\n- after_steps: 12\n- valid_excess: 0.3125\n- probe_f1: 0.5\n- probe: kept 0.5",
        "- macro-F1: 0.61",
        "dataset set0",
        "- Not for clinical use.",
        "## Licence\n\nCC-BY-4.0",
        load_model(out).name,
        json.loads((out / "config.json").read_text())["sha256"],
        "| 32 | planted | cd34 | ab12 | homo_sapiens |",
    ):
        assert fact in card, fact
    assert card.startswith("---\nlicense: cc-by-4.0\nlibrary_name: uce\n")
    curve = card.split("## Curve")[1].split("##")[0]
    assert not any(name in curve for name in ("lr:", "valid_", "probe"))
    assert str(tmp_path) not in card + (out / "config.json").read_text()


def test_an_unfinished_run_gives_its_newest_snapshot_and_says_so(
    make_run: MakeRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run()
    out = export(run, out=tmp_path / "shared")
    assert "exported as it was after 8 of 12 steps" in caplog.text
    model = load_model(out)
    assert model.sha256 == load_model(snapshot_path(run, 8)).sha256
    assert (model.info["training"]["steps"], model.info["training"]["planned_steps"]) == (8, 12)
    assert model.info["training"]["seconds"] == 4.0
    assert model.info["curve"]["excess"]["last"] == 0.375
    assert model.info["validation"]["after_steps"] == 8
    assert not (out / "training").exists()


def test_a_finished_run_is_not_called_unfinished(
    make_run: MakeRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = load_model(export(make_run(finished=True), out=tmp_path / "shared"))
    assert not caplog.records
    assert "planned_steps" not in model.info["training"]


@pytest.mark.parametrize("damaged", ["training/state.safetensors", "model.safetensors"])
def test_a_damaged_snapshot_is_passed_over(
    make_run: MakeRun, tmp_path: Path, damaged: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run()
    path = snapshot_path(run, 8) / damaged
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert load_model(export(run, out=tmp_path / "shared")).info["training"]["steps"] == 4
    assert "step-00000008" in caplog.text
    (snapshot_path(run, 4) / "config.json").unlink()
    (snapshot_path(run, 4) / "training" / "state.json").unlink()
    with pytest.raises(ModelError, match=r"run: no whole snapshot; one is written every 4 steps"):
        export(run, out=tmp_path / "none")


def test_a_step_or_a_snapshot_can_be_asked_for(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(finished=True)
    by_step = load_model(export(run, out=tmp_path / "step", step=4))
    by_path = load_model(export(snapshot_path(run, 4), out=tmp_path / "path"))
    assert by_step.sha256 == by_path.sha256 == load_model(snapshot_path(run, 4)).sha256
    assert by_step.info["curve"] == by_path.info["curve"]
    assert by_path.info["curve"]["excess"]["last"] == 0.25
    with pytest.raises(ModelError, match=r"--step 5: .*run has no such snapshot\. There is 4, 8\."):
        export(run, out=tmp_path / "none", step=5)
    with pytest.raises(UsageError, match=r"--step 4: .*step-00000004 is one model"):
        export(snapshot_path(run, 4), out=tmp_path / "none", step=4)


def test_an_installed_model_is_found_by_name(make_run: MakeRun, uce_home: Path) -> None:
    run = make_run(finished=True)
    assert export(run) == uce_home / "models" / "toy"
    assert load_model("toy").info["training"]["steps"] == 12
    export(run, name="other", step=4)
    assert load_model("other").info["training"]["steps"] == 4
    with pytest.raises(OutputExistsError):
        export(run)
    with pytest.raises(UsageError, match="--name : letters"):
        export(snapshot_path(run, 4))
    assert export(snapshot_path(run, 4), name="third").name == "third"


def test_a_licence_can_be_given_to_a_model_that_has_none(make_run: MakeRun, tmp_path: Path) -> None:
    first = export(make_run(finished=True, licence=""), out=tmp_path / "first")
    assert "## Licence\n\nNot recorded." in (first / "README.md").read_text()
    second = export(first, out=tmp_path / "second", licence="MIT")
    assert load_model(second).info == load_model(first).info | {"licence": "MIT"}


def test_nothing_is_overwritten_unasked_and_no_run_is_ever_written_into(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    out = export(run, out=tmp_path / "shared", step=4)
    with pytest.raises(OutputExistsError, match="pass --overwrite"):
        export(run, out=out)
    assert load_model(out).info["training"]["steps"] == 4
    assert load_model(export(run, out=out, overwrite=True)).info["training"]["steps"] == 8
    for given, inside in (
        (run, run / "toy"),
        (run, snapshot_path(run, 8)),
        (snapshot_path(run, 8), snapshot_path(run, 8)),
        (snapshot_path(run, 8), run / "toy"),
    ):
        with pytest.raises(UsageError, match="Choose an --output outside"):
            export(given, out=inside, overwrite=True)
    with pytest.raises(StorageError):
        export(run, out=tmp_path / "missing" / "shared")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "shared"]


def test_what_is_no_run_is_said_in_one_line(make_run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"absent: no such folder\. Give the folder"):
        export(tmp_path / "absent", out=tmp_path / "out")
    with pytest.raises(UsageError, match=r"empty: neither a run .* nor a model"):
        export(tmp_path / "empty", out=tmp_path / "out")
    run = make_run(snapshots=())
    with pytest.raises(ModelError, match="no whole snapshot"):
        export(run, out=tmp_path / "out")
    with (run / "config.yaml").open("a") as stream:
        stream.write("later: 1\n")
    with pytest.raises(UsageError, match=r"unknown key later.*This version of uce cannot read the run.*checkpoints"):
        export(run, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", "0.5", '{"F1": NaN}', "{", "\xff", " " * 200_000])
def test_scores_that_are_none_are_refused(make_run: MakeRun, tmp_path: Path, content: str) -> None:
    path = tmp_path / "scores.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=r"scores\.json: not scores that can be read"):
        export(make_run(), out=tmp_path / "out", scores=path)
    with pytest.raises(InputError):
        export(tmp_path / "run", out=tmp_path / "out", scores=tmp_path / "absent.json")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["a b", "../up", ".hidden"])
def test_a_name_must_be_one_that_can_be_asked_for(make_run: MakeRun, name: str, uce_home: Path) -> None:
    with pytest.raises(UsageError, match=r"--name .*: letters, digits"):
        export(make_run(), name=name)
    assert not list(uce_home.iterdir())


def test_the_command_exports_what_the_trainer_wrote(
    planted_files: DataSettings,
    make_config: Callable[..., PretrainConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    measured = ValidationSettings(every=2, batches=2)
    trained = pretrain(make_config(data=planted_files, steps=4, batch_size=8, validation=measured), out="run")
    caplog.set_level(logging.WARNING)
    assert main(["export", "run", "-o", "shared", "--name", "final", "--licence", "MIT"]) == 0
    assert capsys.readouterr().out == "shared\n"
    assert load_model("shared").sha256 == load_model(trained).sha256
    card = Path("shared/README.md").read_text()
    assert "# final\n" in card
    assert "dataset set0" in card
    assert "## Curve\n\n- logged: from step 2 to 4\n" in card
    assert "## Validation\n\n- after_steps: 4\n- valid_excess: " in card
    assert "- probe: kept 0." in card
    assert str(planted_files.corpus) not in card + Path("shared/config.json").read_text()
    assert main(["export", "run", "--install"]) == 0
    assert load_model("toy").sha256 == load_model(trained).sha256
    assert main(["export", "run", "-o", "shared"]) == 5
    assert main(["export", "absent", "-o", "out"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: absent: no such folder.")
