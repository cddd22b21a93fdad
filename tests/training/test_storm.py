"""Runs that are killed, at any moment and often, end as if nothing had happened. As a script, this is a doomed run."""

import os
import pkgutil
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file

from uce.config import write_config
from uce.files import atomic_path
from uce.training.loop import pretrain
from uce.training.settings import DataSettings, PretrainConfig, RunSettings
from uce.training.state import Progress, add_state, newest_snapshot, read_state, rotate, seal, set_aside, snapshot_path

# What changes the disk, and the parts of an update.
SAVE, WRITE, PART = "uce.training.state.save_file", "pathlib.Path.write_text", "uce.training.trainer.exchanging"
CALLS = ["os.mkdir", "os.replace", "os.rename", "os.fsync", "os.unlink", "os.rmdir", SAVE, WRITE, PART]
STATE = "training/state.safetensors"


class Death(BaseException):
    """What a SIGKILL is from inside: nothing comes after it, no clearing up either."""


@contextmanager
def dying(after: int, *, calls: list[str] = CALLS, send: int | None = None) -> Iterator[list[str]]:
    """Within it, all of `calls` fail after so many of them, and a file that the first of these writes is half.

    With `send`, the process sends itself that signal there. Gives the names of the calls made.
    """
    made: list[str] = []

    def doomed(name: str) -> Callable[..., Any]:
        real = pkgutil.resolve_name(name)

        def call(*args: Any, **options: Any) -> Any:
            made.append(name)
            if name == "os.fsync" and len(made) <= after:
                return None  # it costs time, and the disk of a test loses no power
            if len(made) <= after or (send and len(made) > after + 1):
                return real(*args, **options)
            if name in (SAVE, WRITE) and len(made) == after + 1:
                path = args[1] if name == SAVE else args[0]
                real(*args, **options)
                os.truncate(path, path.stat().st_size // 2)
            if send is None:
                raise Death
            os.kill(os.getpid(), send)
            return real(*args, **options)

        return call

    with ExitStack() as stack:
        for name in calls:
            stack.enter_context(mock.patch(name, doomed(name)))
        yield made


def _go_on(run: Path) -> None:
    """What a run does with its snapshots, without training."""
    found = newest_snapshot(run)
    done = found[1].step if found else 0
    set_aside(run, after=done)
    for step in range(done + 1, 4):
        folder = snapshot_path(run, step)
        with atomic_path(folder) as temporary:
            temporary.mkdir()
            before = read_state(snapshot_path(run, step - 1))["weights.a"] if step > 1 else torch.ones(3)
            add_state(temporary, {"weights.a": before * 3}, Progress(step))
            seal(temporary)
        rotate(run, keep=1, keep_every=2)


def test_a_snapshot_cut_at_any_call_is_no_snapshot_and_costs_none(tmp_path: Path) -> None:
    for after in count():
        run = tmp_path / str(after)
        (run / "checkpoints").mkdir(parents=True)
        with suppress(Death), dying(after) as made:
            _go_on(run)
        complete = sum(1 for name in made[:after] if name == SAVE)
        found = newest_snapshot(run)
        # At most the one at hand is lost; whatever has a final name is whole.
        assert (found[1].step if found else 0) >= complete - 1
        for folder in (run / "checkpoints").glob("step-*"):
            newest_snapshot(run, step=int(folder.name.removeprefix("step-")))
        _go_on(run)
        names = {path.name for path in (run / "checkpoints").iterdir()}
        # One more is left where the last removal was cut, and there was no next one.
        assert {"step-00000002", "step-00000003"} <= names <= {f"step-{step:08d}" for step in (1, 2, 3)}
        assert read_state(snapshot_path(run, 3))["weights.a"].tolist() == [27.0] * 3
        if len(made) <= after:
            break
    assert after > 60


@pytest.fixture
def config(planted_files: DataSettings, make_config: Callable[..., PretrainConfig]) -> PretrainConfig:
    torch.set_num_threads(1)
    config = make_config(data=planted_files, steps=6, accumulate=2, ema=0.9)
    model = replace(config.model, dropout=0.1, layers=1, dim=16, heads=2, hidden=16, decoder_dim=16)
    return replace(config, model=model, batch_size=16, run=RunSettings(snapshot_every=2, log_every=3))


# Without what is measured and drawn beside the training.
QUICK: dict[str, Callable[..., Any]] = {
    "uce.training.loop.check_fits": lambda *_: None,
    "uce.training.trainer.training_flops_per_token": lambda *_, **__: 1.0,
    "uce.training.trainer.peak_flops": lambda *_: None,
    "uce.training.trainer.draw_curves": lambda _: None,
}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, instead in QUICK.items():
        monkeypatch.setattr(name, instead)


def _state(run: Path) -> dict[str, torch.Tensor]:
    """All of a finished run: weights, averages, moments, and the model handed out."""
    return load_file(snapshot_path(run, 6) / STATE) | load_file(run / "toy" / "model.safetensors")


def _assert_equal(run: Path, straight: Path) -> None:
    one, two = _state(run), _state(straight)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    # Nothing that was cut is left, but for snapshots whose removal was.
    names = [{path.relative_to(folder).parts[0] for path in folder.rglob("*")} for folder in (run, straight)]
    assert names[0] == names[1]
    assert not list(run.rglob(".*"))


@pytest.mark.usefixtures("quick")
def test_a_run_that_dies_again_and_again_ends_bit_equal(config: PretrainConfig, tmp_path: Path) -> None:
    pretrain(config, out=tmp_path / "straight")
    moments = random.Random(7)
    died = []
    while not (tmp_path / "killed" / "toy").exists():
        with suppress(Death), dying(moments.randrange(140)) as made:
            pretrain(config, out=tmp_path / "killed")
        died.append(made[-1])
        for lock in (tmp_path / "killed").glob(".lock*"):
            lock.unlink()  # of a process that is dead; this one lives on
        assert len(died) < 100
    assert len(died) > 5
    _assert_equal(tmp_path / "killed", tmp_path / "straight")


def _start(config: Path, run: Path, *doom: object, processes: int = 1) -> "subprocess.Popen[str]":
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command = [sys.executable, *(launcher if processes > 1 else []), __file__, config, run, *doom]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    return subprocess.Popen([str(word) for word in command], env=environment, stderr=subprocess.PIPE, text=True)


def _end(process: "subprocess.Popen[str]") -> tuple[int, str]:
    try:
        said = process.communicate(timeout=300)[1]
    finally:
        process.terminate()  # a launcher passes it on
    return process.returncode, said


def _newest(run: Path) -> int:
    found = newest_snapshot(run)
    assert found is not None
    return found[1].step


@pytest.mark.usefixtures("quick")
def test_a_killed_process_and_one_asked_to_stop_continue_bit_equal(config: PretrainConfig, tmp_path: Path) -> None:
    pretrain(config, out=tmp_path / "straight")
    run, file = tmp_path / "killed", tmp_path / "config.yaml"
    write_config(config, file)
    code, said = _end(_start(file, run, "SIGKILL", SAVE, 1))  # half of the second snapshot is written
    assert (code, _newest(run)) == (-signal.SIGKILL, 2), said
    assert len(list((run / "checkpoints").iterdir())) == 2
    code, said = _end(_start(file, run, "SIGTERM", PART, 1))  # in the second part of the third update
    assert (code, _newest(run)) == (130, 3), said
    assert "Run the same command again to go on where it stopped." in said
    pretrain(config, out=run)
    _assert_equal(run, tmp_path / "straight")


def test_two_processes_that_share_a_model_stop_together_and_continue_bit_equal(
    config: PretrainConfig, tmp_path: Path
) -> None:
    run, file = tmp_path / "killed", tmp_path / "config.yaml"
    write_config(replace(config, run=replace(config.run, sharding="fsdp")), file)
    straight = _start(file, tmp_path / "straight", processes=2)
    code, said = _end(_start(file, run, "SIGTERM", PART, 1, processes=2))  # one of them is asked, both stop
    assert (code, _newest(run)) == (1, 1), said
    for process in (straight, _start(file, run, processes=2)):
        code, said = _end(process)
        assert code == 0, said
    _assert_equal(run, tmp_path / "straight")


def _main(config: str, run: str, signum: str = "SIGTERM", call: str = PART, after: str = "1000") -> None:
    """Train by the command; the second of two processes, or the only one, sends itself a signal at a call."""
    from uce.cli.main import main

    torch.set_num_threads(1)
    own = os.environ.get("RANK", "1") == "1"
    with ExitStack() as stack:
        for name, instead in QUICK.items():
            stack.enter_context(mock.patch(name, instead))
        stack.enter_context(dying(int(after) if own else 1000, calls=[call], send=getattr(signal, signum)))
        code = main(["pretrain", config, "-o", run])
    sys.stderr.flush()
    # What torch tears down after this, it may abort on while threads of the group still end; all is written.
    os._exit(code)


if __name__ == "__main__":
    _main(*sys.argv[1:])
