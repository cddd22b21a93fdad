"""`uce pretrain`: a configuration in, a model that embeds out; mistakes are one line."""

from pathlib import Path

import pytest

from uce.cli.main import main
from uce.config import write_config
from uce.model.checkpoint import load_model
from uce.training.settings import DataSettings, PretrainConfig


@pytest.fixture
def config_file(
    planted_files: DataSettings, make_config: "type[PretrainConfig]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    write_config(make_config(steps=4, batch_size=8), tmp_path / "config.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "config.yaml"


def test_a_run_ends_in_a_model_that_loads_and_is_not_repeated(
    config_file: Path, planted_files: DataSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pretrain", str(config_file), f"data.folder={planted_files.folder}", "-o", "run"]
    words.insert(2, f"data.manifest={planted_files.manifest}")
    assert main(words) == 0
    folder = Path(capsys.readouterr().out.strip())
    assert load_model(folder).info["training"]["steps"] == 4
    assert main(words) == 5
    assert "is finished. Choose another --output" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "text"), [("stepz=3", "Did you mean steps?"), ("steps=many", "steps"), ("objective.head=dot", "dot")]
)
def test_a_wrong_setting_is_named(config_file: Path, word: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", str(config_file), word, "-o", "run"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert text in said
    assert not Path("run").exists()
