"""Updates that would spoil a run are left out and named, spikes are told, a run that does not recover ends."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uce.errors import UsageError
from uce.training.guard import Guard, suspect_record, write_suspects

BAD = [math.nan, math.inf, -math.inf]


@pytest.fixture
def record() -> Callable[..., dict[str, Any]]:
    def make(**changes: object) -> dict[str, Any]:
        given = {"step": 4, "part": 9, "why": "spike", "loss": 0.5, "norm": 80.0}
        return suspect_record("lung", np.array([7, 3, 7]), **(given | changes))  # type: ignore[arg-type]

    return make


@pytest.mark.parametrize("bad", BAD)
def test_what_is_not_finite_is_left_out(bad: float) -> None:
    guard = Guard()
    assert guard.judge(bad, 1.0) == "left out"
    assert guard.judge(1.0, bad) == "left out"
    assert guard.judge(1.0, 1.0) == "sound"


def test_a_spike_is_ten_times_the_median() -> None:
    guard = Guard()
    assert {guard.judge(1.0, norm) for norm in range(1, 21)} == {"sound"}  # median 10.5
    assert guard.judge(1.0, 105.0) == "sound"
    assert guard.judge(1.0, 111.0) == "spike"
    assert guard.judge(1.0, 12.0) == "sound"


def test_the_first_norms_are_no_measure_of_others() -> None:
    guard = Guard()
    assert {guard.judge(1.0, 1e-6), guard.judge(1.0, 1e3)} == {"sound"}


def test_what_lasts_is_no_spike_any_more() -> None:
    guard = Guard()
    for _ in range(100):
        guard.judge(1.0, 1.0)
    verdicts = [guard.judge(1.0, 100.0) for _ in range(60)]
    assert verdicts[0] == "spike"
    assert verdicts[-1] == "sound"


@given(st.lists(st.tuples(st.floats(), st.floats(min_value=0)), max_size=60), st.integers(0, 60))
def test_what_is_left_out_does_not_depend_on_what_came_before(updates: list[tuple[float, float]], cut: int) -> None:
    straight, resumed = Guard(), Guard()
    whole = [straight.judge(*update) for update in updates]
    again = [resumed.judge(*update) for update in updates[cut:]]
    assert [v == "left out" for v in whole[cut:]] == [v == "left out" for v in again]


def test_three_in_a_row_end_the_run() -> None:
    guard = Guard()
    for loss in (math.nan, math.nan, 1.0, math.nan, math.nan):
        guard.judge(loss, 1.0)
        guard.check(811, ["lung"], 3e-4)
    guard.judge(1.0, math.inf)
    with pytest.raises(UsageError) as caught:
        guard.check(812, ["lung", "heart"], 3e-4)
    assert str(caught.value) == (
        "step 812 (lung, heart): loss or gradient not finite, 3 updates in a row. "
        "Lower optimizer.lr (0.0003 here), or look at the cells named in suspects.jsonl."
    )


def test_the_record_names_the_cells(record: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    write_suspects(tmp_path, [record()])
    write_suspects(tmp_path, [record(loss=math.nan, norm=math.inf), record(part=10)])

    def refuse(text: str) -> None:
        raise AssertionError(text)

    lines = (tmp_path / "suspects.jsonl").read_text().splitlines()
    first, second, third = (json.loads(line, parse_constant=refuse) for line in lines)
    assert first == {
        "step": 4, "part": 9, "dataset": "lung", "rows": [7, 3, 7], "why": "spike", "loss": 0.5, "norm": 80.0
    }  # fmt: skip
    assert (second["loss"], second["norm"], third["part"]) == ("nan", "inf", 10)
