"""What a run writes down: its log, what the card says, and which folders it may continue."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uce.config import write_config
from uce.errors import OutputExistsError, StorageError, UsageError
from uce.training.corpus import Corpus
from uce.training.objectives.contrastive import ContrastiveSettings
from uce.training.records import Metrics, check_run, describe, is_number, read_curve, read_metrics, read_validation
from uce.training.settings import DataSettings, PretrainConfig, RunSettings

Configure = Callable[..., PretrainConfig]


@pytest.fixture
def run(make_config: Configure, tmp_path: Path) -> Path:
    """The folder of an unfinished run."""
    write_config(make_config(), tmp_path / "config.yaml")
    return tmp_path


def test_a_run_goes_on_with_the_same_settings_and_a_corpus_that_moved(run: Path, make_config: Configure) -> None:
    check_run(make_config(), run, run / "toy")
    check_run(make_config(), run / "absent", run / "absent" / "toy")
    check_run(make_config(data=DataSettings(corpus="/elsewhere/corpus")), run, run / "toy")
    check_run(make_config(run=RunSettings(workers=7, sharding="fsdp", trackers=("wandb",))), run, run / "toy")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, r"holds a run with seed = 0, not 1\. Choose another --output"),
        ({"data": DataSettings(corpus="/elsewhere", balance=1.0)}, r"data\.balance = 0\.5, not 1\.0"),
        ({"objective": ContrastiveSettings()}, r"objective\.name = 'masked', not 'contrastive'"),
        ({"steps": 13, "run": RunSettings(workers=3)}, r"steps = 12, not 13"),
    ],
)
def test_another_configuration_is_refused_by_its_first_difference(
    run: Path, make_config: Configure, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        check_run(make_config(**changes), run, run / "toy")


def test_a_finished_run_and_one_of_another_version_are_refused(run: Path, make_config: Configure) -> None:
    (run / "toy").mkdir()
    with pytest.raises(OutputExistsError, match="is finished"):
        check_run(make_config(), run, run / "toy")
    with (run / "config.yaml").open("a") as stream:
        stream.write("of_tomorrow: 1\n")
    with pytest.raises(UsageError, match=r"of_tomorrow.* This version of uce cannot continue the run"):
        check_run(make_config(), run, run / "other")


def test_the_card_has_the_hash_of_the_corpus_and_not_its_place(make_config: Configure, corpus: Corpus) -> None:
    said = describe(make_config(data=DataSettings(corpus="/home/of/someone")), corpus, 7)
    assert said["training"]["corpus_sha256"] == corpus.sha256
    assert "/home" not in json.dumps(said)
    assert [row["dataset"] for row in said["trained_on"]] == ["set0", "set1"]
    assert said == describe(make_config(data=DataSettings(corpus="/moved"), run=RunSettings(workers=9)), corpus, 7)


def test_lines_are_strict_json_and_numbers_reach_the_trackers(tmp_path: Path) -> None:
    tracked: list[Any] = []
    metrics = Metrics(tmp_path, lambda numbers, step: tracked.append((numbers, step)))
    metrics.write({"step": 5, "loss": float("nan"), "lr": 1.23456789e-8, "suspect": ["a"], "probe": {"x": 0.5}, "n": 3})
    text = (tmp_path / "metrics.jsonl").read_text()
    assert text == ('{"step": 5, "loss": null, "lr": 1.23457e-08, "suspect": ["a"], "probe": {"x": 0.5}, "n": 3}\n')
    assert tracked == [({"lr": 1.23457e-08, "probe/x": 0.5, "n": 3}, 5)]


def test_a_cut_takes_back_what_comes_again_and_what_a_crash_left(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    metrics.cut(3)
    for step in range(1, 6):
        metrics.write({"step": step, "loss": 1 / step})
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 2, "lo')
    before = (tmp_path / "metrics.jsonl").read_text().splitlines()
    metrics.cut(3)
    assert (tmp_path / "metrics.jsonl").read_text().splitlines() == before[:3]
    metrics.write({"step": 4})
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4]


def test_a_log_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(StorageError, match=r"metrics\.jsonl: cannot be written \(Is a directory\)"):
        Metrics(tmp_path).write({"step": 1})


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), _VALUES, max_size=4))
def test_any_line_can_be_written_and_read(tmp_path_factory: pytest.TempPathFactory, line: dict[str, Any]) -> None:
    run = tmp_path_factory.mktemp("run")
    Metrics(run, lambda _numbers, _step: None).write(line | {"step": 1})
    (read,) = read_metrics(run)
    assert read.keys() == line.keys() | {"step"}
    json.loads((run / "metrics.jsonl").read_text(), parse_constant=pytest.fail)


def test_what_no_number_is() -> None:
    assert is_number(0)
    assert is_number(-1.5)
    assert not any(map(is_number, (True, None, "1", float("nan"), float("inf"), 10**400, [1])))


def test_the_curve_is_of_training_and_the_validation_of_its_last_measurement(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    assert read_curve(tmp_path) == read_validation(tmp_path) == {}
    for step, loss in ((2, 0.7), (4, float("nan")), (6, 0.5), (8, 0.6)):
        measured = {"valid_loss": loss + 0.1, "probe_f1": step / 10, "probe": {"kept": 0.1}} if step in {2, 6} else {}
        metrics.write({"step": step, "loss": loss, **measured, "lr": 0.1, "seconds": step / 2})
    assert read_curve(tmp_path) == {
        "logged": "from step 2 to 8",
        "loss": {"first": 0.7, "last": 0.6, "lowest": 0.5, "highest": 0.7},
        "seconds": 4.0,
    }
    assert read_validation(tmp_path) == {
        "after_steps": 6,
        "valid_loss": 0.6,
        "probe_f1": 0.6,
        "probe": {"kept": 0.1},
    }
    assert read_validation(tmp_path, last=5)["after_steps"] == read_curve(tmp_path, last=2)["seconds"] * 2 == 2
    (tmp_path / "other").mkdir()
    Metrics(tmp_path / "other").write({"step": 1, "loss": 0.5, "probe_f1": float("nan")})
    assert read_validation(tmp_path / "other") == {}


def test_a_curve_reads_what_is_whole_and_a_number(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(
        b'{"step": 1, "top1": 0.5, "suspect": []}\n[1]\nnull\n\xff\n{"step": 2, "top1": NaN, "suspect": []}\n'
    )
    assert read_curve(tmp_path) == {
        "logged": "from step 1 to 2",
        "top1": {"first": 0.5, "last": 0.5, "lowest": 0.5, "highest": 0.5},
    }
    assert read_curve(tmp_path, last=0) == read_curve(tmp_path / "absent") == {}
