"""Lock files: one holder at a time, whoever dies."""

import json
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from uce import locks
from uce.errors import StorageError
from uce.locks import lock


def dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def leave(path: Path, pid: int, host: str | None = None) -> None:
    path.write_text(json.dumps({"host": host or socket.gethostname(), "pid": pid}))


def test_the_lock_names_its_owner_and_goes_away(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with lock(path):
        assert json.loads(path.read_text()) == {"host": socket.gethostname(), "pid": os.getpid()}
    assert not path.exists()


def test_the_lock_goes_away_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), lock(tmp_path / ".lock"):
        _ = 1 / 0
    assert not (tmp_path / ".lock").exists()


def test_the_lock_of_a_dead_process_is_taken_over_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(tmp_path / ".lock", dead_pid())
    waited: list[float] = []
    monkeypatch.setattr(locks.time, "sleep", waited.append)
    with lock(tmp_path / ".lock"):
        assert not waited


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x", "host": "y"}'])
def test_a_lock_without_an_owner_is_taken_over_only_when_it_is_old(content: str, tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    path.write_text(content)
    assert not locks._abandoned(path, locks._owner(path))
    os.utime(path, (0, 0))
    with lock(path):
        assert locks._owner(path) == f"process {os.getpid()} on {socket.gethostname()}"


@pytest.mark.parametrize("host", [None, "elsewhere"])
def test_a_living_owner_is_waited_for_and_named_once(
    host: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ".lock"
    leave(path, os.getpid(), host)
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            path.unlink()

    monkeypatch.setattr(locks.time, "sleep", sleep)
    with caplog.at_level(logging.WARNING, logger="uce"), lock(path):
        assert len(waited) == 3
    assert caplog.messages == [
        f"Waiting for process {os.getpid()} on {host or socket.gethostname()}, which holds {path}. "
        "If it no longer runs, delete that file."
    ]


COUNT = """
import sys, time
from pathlib import Path
from uce import locks
locks._POLL_SECONDS = 0.001
counter = Path(sys.argv[1])
for _ in range(20):
    with locks.lock(sys.argv[2]):
        count = int(counter.read_text())
        time.sleep(0.002)
        counter.write_text(str(count + 1))
"""


def test_many_processes_that_meet_a_dead_owner_never_hold_the_lock_together(tmp_path: Path) -> None:
    counter, path = tmp_path / "counter", tmp_path / ".lock"
    counter.write_text("0")
    leave(path, dead_pid())
    command = [sys.executable, "-c", COUNT, str(counter), str(path)]
    processes = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(4)]
    assert [process.wait(300) for process in processes] == [0] * 4
    assert counter.read_text() == "80"


def test_a_lock_of_another_host_can_be_taken_over(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1}))
    with pytest.raises(StorageError, match="process 1 on elsewhere is writing there"), lock(path, wait=False):
        pass
    with lock(path, wait=False, elsewhere=False):
        assert json.loads(path.read_text())["pid"] == os.getpid()
        with pytest.raises(StorageError), lock(path, wait=False, elsewhere=False):
            pass
