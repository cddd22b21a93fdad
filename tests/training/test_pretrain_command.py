"""`uce pretrain`: a configuration in, a model that embeds out; mistakes are one line."""

import json
from pathlib import Path

import pytest

import uce
from uce.cli.main import main
from uce.config import write_config
from uce.model.checkpoint import load_model
from uce.training.settings import DataSettings, PretrainConfig

from .conftest import planted_cells


@pytest.fixture
def config_file(
    planted_files: DataSettings, make_config: "type[PretrainConfig]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    write_config(make_config(steps=4, batch_size=8, data=planted_files), tmp_path / "config.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "config.yaml"


def test_a_run_ends_in_a_model_that_embeds_and_is_not_repeated(
    config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "pretrain",
        str(config_file),
        "run.log_every=2",
        "-o",
        "run",
        "run.log_every=1",
        "--expect-world-size",
        "1",
    ]
    assert main(words) == 0
    folder = Path(capsys.readouterr().out.strip())
    assert load_model(folder).info["training"]["steps"] == 4
    assert [json.loads(line)["step"] for line in Path("run/metrics.jsonl").read_text().splitlines()] == [1, 2, 3, 4]
    cells = planted_cells(20)
    uce.embed(cells, model=str(folder), species="human")
    assert cells.obsm["X_uce"].shape == (20, 32)
    assert main(words) == 5
    assert "is finished. Choose another --output" in capsys.readouterr().err


def test_an_unfinished_run_goes_on_from_the_snapshot_that_is_named(
    config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pretrain", str(config_file), "run.snapshot_every=2", "-o", "run"]
    assert main(words) == 0
    finished = Path(capsys.readouterr().out.strip())
    weights = (finished / "model.safetensors").read_bytes()
    finished.rename(finished.with_name("first"))
    assert main([*words, "--resume", "never"]) == 5
    assert "holds an unfinished run" in capsys.readouterr().err
    assert main([*words, "--resume", "2", "--allow-corpus-change"]) == 0
    assert (finished / "model.safetensors").read_bytes() == weights
    # What was there beyond that snapshot is set aside, and nothing is left unsaid.
    assert [json.loads(line)["step"] for line in Path("run/metrics.jsonl").read_text().splitlines()] == [2, 4]


@pytest.mark.parametrize(
    ("word", "text"), [("stepz=3", "Did you mean steps?"), ("steps=many", "steps"), ("objective.head=dot", "dot")]
)
def test_a_wrong_setting_is_named(config_file: Path, word: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", str(config_file), word, "-o", "run"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert text in said
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "name the folder of the run with --output"),
        (["-o", "run", "--expect-world-size", "2"], "1 process(es), 2 were expected. On CPUs start them with torchrun"),
        (["model.protein_dim=64", "-o", "run"], "model.protein_dim = 64, but planted vectors are 32 wide"),
        (["accumulate=3", "-o", "run"], "batch_size = 8: not a multiple of accumulate = 3"),
        (["data.split=tests", "-o", "run"], "no dataset is left with split tests; its splits are train, validation"),
    ],
)
def test_a_run_that_cannot_begin_leaves_nothing_behind(
    config_file: Path, words: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pretrain", str(config_file), *words]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert text in said
    assert not Path("run").exists()


@pytest.mark.parametrize("word", ["nonsense", "--stepz=3"])
def test_a_word_that_is_no_setting_is_refused(config_file: Path, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["pretrain", str(config_file), "-o", "run", word])
    assert f"unrecognized arguments: {word}" in capsys.readouterr().err


def test_resume_is_a_word_or_a_number(config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["pretrain", str(config_file), "-o", "run", "--resume", "sometimes"])
    assert "'sometimes': auto, never or a number of updates is needed" in capsys.readouterr().err
