"""Grids of long jobs: what is stored, what is done again, who does what when several processes share one."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from uce import grid
from uce.errors import InputError, ModelError, UsageError
from uce.files import write_json
from uce.grid import JSON, Row, read_rows, run_rows

ROWS = [Row(f"row-{n}", {"n": n, "parts": (1, n)}) for n in range(4)]


def square(row: Row, place: Path) -> Mapping[str, JSON]:
    """Says in the row's folder that it was called."""
    calls = place / "calls"
    calls.write_text((calls.read_text() if calls.is_file() else "") + "x")
    n = row.settings["n"]
    assert isinstance(n, int)
    return {"square": n * n}


def calls(folder: Path) -> dict[str, str]:
    return {path.parent.name: path.read_text() for path in sorted((folder / "runs").glob("*/calls"))}


def test_every_row_is_done_once_and_read_in_the_order_of_names(tmp_path: Path) -> None:
    run_rows(tmp_path, ROWS[::-1], square, quiet=True)
    run_rows(tmp_path, ROWS, square, quiet=True)
    assert set(calls(tmp_path).values()) == {"x"}
    records = read_rows(tmp_path)
    assert [(record["name"], record["status"], record["values"]) for record in records] == [
        (f"row-{n}", "done", {"square": n * n}) for n in range(4)
    ]
    assert records[2]["settings"] == {"n": 2, "parts": [1, 2]}
    assert all(record["seconds"] >= 0 for record in records)
    assert not list((tmp_path / "rows").glob(".*"))


def test_a_failed_row_says_why_and_the_others_go_on(tmp_path: Path) -> None:
    mended = tmp_path / "mended"

    def sometimes(row: Row, place: Path) -> Mapping[str, JSON]:
        if not mended.exists():
            if row.name == "row-1":
                raise ModelError("m.h5ad: no such model.\nGive another.")
            if row.name == "row-2":
                return {"square": float("nan")}
        return square(row, place)

    run_rows(tmp_path, ROWS, sometimes, quiet=True)
    status = {record["name"]: record["status"] for record in read_rows(tmp_path)}
    assert status == {"row-0": "done", "row-1": "failed", "row-2": "failed", "row-3": "done"}
    one, two = read_rows(tmp_path)[1:3]
    assert one["reason"] == "m.h5ad: no such model. Give another."
    assert "trace" not in one
    assert two["reason"].startswith("ValueError: ")
    assert "Traceback" in two["trace"]
    mended.touch()
    run_rows(tmp_path, ROWS, sometimes, quiet=True)
    assert len(calls(tmp_path)) == 2, "a failed row is done again only when that is asked for"
    run_rows(tmp_path, ROWS, sometimes, retry=True, quiet=True)
    assert {record["status"] for record in read_rows(tmp_path)} == {"done"}
    assert set(calls(tmp_path).values()) == {"x"}


def test_an_interrupt_goes_up_and_leaves_the_row_to_be_done(tmp_path: Path) -> None:
    def interrupted(row: Row, place: Path) -> Mapping[str, JSON]:
        if row.name == "row-2":
            raise KeyboardInterrupt
        return square(row, place)

    with pytest.raises(KeyboardInterrupt):
        run_rows(tmp_path, ROWS, interrupted, quiet=True)
    assert [record["name"] for record in read_rows(tmp_path)] == ["row-0", "row-1"]
    run_rows(tmp_path, ROWS, square, quiet=True)
    assert len(read_rows(tmp_path)) == 4


def test_other_settings_under_a_stored_name_are_refused(tmp_path: Path) -> None:
    run_rows(tmp_path, ROWS, square, quiet=True)
    others: list[dict[str, JSON]] = [{"n": 7, "parts": (1, 0)}, {"n": 0, "parts": (1, 0), "more": 1}, {"n": 0}]
    for changed in others:
        with pytest.raises(UsageError, match=r"row-0\.json: holds a row with (n|more|parts) = "):
            run_rows(tmp_path, [*ROWS[1:], Row("row-0", changed)], square, quiet=True)


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "../up", "a b", "x" * 129])
def test_names_that_are_no_file_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="row '"):
        Row(name)


def test_a_name_given_twice_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="row A is there twice"):
        run_rows(tmp_path, [Row("a"), Row("A")], square, quiet=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"name": "other", "settings": {}, "status": "done"}'])
def test_a_damaged_row_is_one_clear_error(content: str, tmp_path: Path) -> None:
    run_rows(tmp_path, ROWS, square, quiet=True)
    (tmp_path / "rows" / "row-1.json").write_text(content)
    for use in (lambda: read_rows(tmp_path), lambda: run_rows(tmp_path, ROWS, square, quiet=True)):
        with pytest.raises(InputError, match=r"row-1\.json: not the result of a row"):
            use()


def test_folders_of_finished_rows_are_removed_where_they_are_not_to_be_kept(tmp_path: Path) -> None:
    def one_fails(row: Row, place: Path) -> Mapping[str, JSON]:
        values = square(row, place)
        if row.name == "row-3":
            raise ModelError("no")
        return values

    run_rows(tmp_path, ROWS, one_fails, keep=False, quiet=True)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["row-3"]


def test_progress_names_the_row_and_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_rows(tmp_path, ROWS[:2], square)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("row-0: done in 0 seconds. 1 of 2 rows; left: ")
    assert second.startswith("row-1: done in 0 seconds. 2 of 2 rows; ")


SLOW = """
import os, sys, time
from pathlib import Path
from uce.grid import Row, run_rows

def work(row, place):
    (place / str(os.getpid())).touch()
    (place / "begun").touch()
    wait = Path(sys.argv[2])
    while wait.exists():
        time.sleep(0.01)
    time.sleep(0.05)
    return {"pid": os.getpid()}

run_rows(sys.argv[1], [Row(f"row-{n}") for n in range(8)], work, quiet=True)
"""


def start(folder: Path, wait: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", SLOW, str(folder), str(wait)])


def until(found: Path) -> None:
    end = time.monotonic() + 300
    while not found.exists():
        assert time.monotonic() < end, f"{found} never came"
        time.sleep(0.01)


def test_two_processes_share_the_rows(tmp_path: Path) -> None:
    wait = tmp_path / "wait"
    wait.touch()
    processes = [start(tmp_path / "grid", wait) for _ in range(2)]
    for row in ("row-0", "row-1"):  # each is at a row of its own before either may end it
        until(tmp_path / "grid" / "runs" / row / "begun")
    wait.unlink()
    assert [process.wait(300) for process in processes] == [0, 0]
    records = read_rows(tmp_path / "grid")
    assert len(records) == 8
    assert {record["values"]["pid"] for record in records} == {process.pid for process in processes}
    for record in records:
        own = {path.name for path in (tmp_path / "grid" / "runs" / record["name"]).iterdir()}
        assert own == {"begun", str(record["values"]["pid"])}, "no row was begun by both"


def test_the_row_of_a_killed_process_is_done_by_the_next(tmp_path: Path) -> None:
    wait, grid = tmp_path / "wait", tmp_path / "grid"
    wait.touch()
    process = start(grid, wait)
    until(grid / "runs" / "row-0" / "begun")
    os.kill(process.pid, signal.SIGKILL)
    process.wait(300)
    assert (grid / "rows" / ".row-0.lock").exists()
    assert read_rows(grid) == []
    wait.unlink()
    again = start(grid, wait)
    assert again.wait(300) == 0
    assert {record["values"]["pid"] for record in read_rows(grid)} == {again.pid}
    left = {path.name for path in (grid / "runs" / "row-0").iterdir()}
    assert left == {"begun", str(process.pid), str(again.pid)}, "the next one finds what the first one left"


def test_a_row_that_another_process_holds_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    held = tmp_path / "rows" / ".row-0.lock"
    held.write_text(json.dumps({"host": os.uname().nodename, "pid": os.getppid()}))
    run_rows(tmp_path, ROWS, square, retry=True, quiet=True)
    assert [record["name"] for record in read_rows(tmp_path)] == ["row-1", "row-2", "row-3"]


def test_a_row_that_was_done_just_before_its_lock_was_ours_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = grid._held

    def late(row: Row, folder: Path) -> ExitStack | None:
        done = {"name": row.name, "settings": dict(row.settings), "status": "done", "values": {}, "seconds": 1.0}
        write_json(folder / "rows" / f"{row.name}.json", done)
        return held(row, folder)

    monkeypatch.setattr(grid, "_held", late)
    run_rows(tmp_path, ROWS, square, quiet=True)
    assert calls(tmp_path) == {}
