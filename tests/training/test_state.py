"""Snapshots: what is damaged in any way is passed over, what is whole is never lost."""

import importlib
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError

from uce.errors import StorageError, UsageError
from uce.files import atomic_path
from uce.model.checkpoint import load_model
from uce.training.state import (
    Progress,
    add_state,
    newest_snapshot,
    read_state,
    rotate,
    seal,
    set_aside,
    snapshot_path,
)

PROGRESS = Progress(step=4, seconds=1.5, corpus="c" * 64, world=2)
MANIFEST, STATE, FACTS = "manifest.json", "training/state.safetensors", "training/state.json"


def _snapshot(run: Path, step: int) -> Path:
    folder = snapshot_path(run, step)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        (temporary / "config.json").write_text("{}")
        add_state(temporary, {"weights.a": torch.full((3,), float(step))}, replace(PROGRESS, step=step))
        seal(temporary)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with snapshots after 4, 8 and 12 updates."""
    for step in (4, 8, 12):
        _snapshot(tmp_path, step)
    return tmp_path


def _steps(run: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in (run / "checkpoints").iterdir())


def _flip(path: Path, bit: int = 100) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8 % len(content)] ^= 1 << bit % 8
    path.write_bytes(content)


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _reseal(folder: Path, name: str, content: str) -> None:
    """Another content of a file, to which the manifest is made to agree."""
    (folder / name).write_text(content)
    (folder / MANIFEST).unlink()
    seal(folder)


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda folder: (folder / STATE).unlink(), f"{STATE} is missing"),
    "cut": (lambda folder: (folder / STATE).write_bytes((folder / STATE).read_bytes()[:-1]), "bytes, not"),
    "flipped": (lambda folder: _flip(folder / STATE), f"{STATE} has changed"),
    "facts": (lambda folder: _flip(folder / FACTS), f"{FACTS} has changed"),
    "extra": (lambda folder: (folder / "pytorch.bin").write_text(""), r"pytorch\.bin does not belong to it"),
    "link": (lambda folder: (folder / "more").symlink_to(folder), "more is a link"),
    "no manifest": (lambda folder: (folder / MANIFEST).unlink(), "FileNotFoundError"),
    "empty": (lambda folder: (folder / MANIFEST).write_text(""), "JSONDecodeError"),
    "deep": (lambda folder: (folder / MANIFEST).write_text("[" * 100_000), "RecursionError"),
    "bytes": (lambda folder: (folder / MANIFEST).write_bytes(b"\xff\xfe\x00"), "UnicodeDecodeError"),
    "list": (lambda folder: (folder / MANIFEST).write_text("[]"), r"manifest\.json holds no object"),
    "version": (lambda folder: _edit(folder / MANIFEST, version=2), r"manifest\.json is not of uce-snapshot 1"),
    "format": (lambda folder: _edit(folder / MANIFEST, format="other"), r"manifest\.json is not of uce-snapshot 1"),
    "files": (lambda folder: _edit(folder / MANIFEST, files=["config.json"]), "does not belong to it"),
    "no files": (lambda folder: _edit(folder / MANIFEST, files=3), r"cannot be read \(TypeError"),
    "sizes": (
        lambda folder: _edit(folder / MANIFEST, files={"config.json": 2, STATE: 80, FACTS: 9}),
        r"cannot be read \(TypeError",
    ),
    "renamed": (lambda folder: folder.rename(snapshot_path(folder.parents[1], 16)), "holds what was after 12 updates"),
    "no facts": (lambda folder: _reseal(folder, FACTS, "{}"), r"cannot be read \(KeyError: 'step'\)"),
    "no step": (lambda folder: _reseal(folder, FACTS, '{"step": "?"}'), "cannot be read"),
}


def test_what_was_written_is_read(run: Path) -> None:
    found = newest_snapshot(run)
    assert found == (snapshot_path(run, 12), replace(PROGRESS, step=12))
    assert read_state(found[0])["weights.a"].tolist() == [12.0] * 3
    assert newest_snapshot(run, step=8) == (snapshot_path(run, 8), replace(PROGRESS, step=8))
    assert newest_snapshot(run / "nowhere") is None


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_snapshot_is_passed_over_with_the_reason(
    run: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    damage, reason = DAMAGE[kind]
    damage(snapshot_path(run, 12))
    with caplog.at_level(logging.WARNING):
        found = newest_snapshot(run)
    assert found is not None
    assert found[1].step == 8
    (warning,) = (record.getMessage() for record in caplog.records)
    assert "looking for an older snapshot" in warning
    assert "\n" not in warning
    with pytest.raises(UsageError, match=reason):
        newest_snapshot(run, step=_steps(run)[-1])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(name=st.sampled_from([STATE, FACTS, "config.json", MANIFEST]), bit=st.integers(0, 8 * 4096))
def test_no_flipped_bit_gives_other_numbers(run: Path, name: str, bit: int) -> None:
    path = snapshot_path(run, 12) / name
    before = path.read_bytes()
    _flip(path, bit)
    found = newest_snapshot(run)
    path.write_bytes(before)
    assert found is not None
    # A flip in the manifest may be harmless (of white space, say); one in a file that it vouches for never is.
    assert found[1] in {replace(PROGRESS, step=8), replace(PROGRESS, step=12)}
    assert name == MANIFEST or found[1].step == 8


def test_links_and_other_names_are_no_snapshots(run: Path, tmp_path: Path) -> None:
    aside = snapshot_path(run, 12).rename(tmp_path / "aside")
    snapshot_path(run, 12).symlink_to(aside)
    snapshot_path(run, 99).write_text("a file")
    shutil.copytree(aside, run / "checkpoints" / "step-latest")
    shutil.copytree(aside, run / "checkpoints" / "step-12")
    found = newest_snapshot(run)
    assert found is not None
    assert found[1].step == 8


def test_a_step_that_is_not_there_is_answered_with_those_that_are(run: Path) -> None:
    with pytest.raises(UsageError, match=r": no snapshot after 7 updates\. There is 4, 8, 12\.$"):
        newest_snapshot(run, step=7)
    with pytest.raises(UsageError, match=r"There is none\.$"):
        newest_snapshot(run / "nowhere", step=7)
    _flip(snapshot_path(run, 8) / STATE)
    with pytest.raises(UsageError, match=r"step-00000008: .* has changed\. Choose another of 4, 8, 12\.$"):
        newest_snapshot(run, step=8)


def test_rotation_keeps_the_newest_and_every_nth_and_clears_leftovers(run: Path) -> None:
    (run / "checkpoints" / ".step-00000016.tmp-1-aaaa" / "training").mkdir(parents=True)
    for step in (10, 16, 20):
        _snapshot(run, step)
    rotate(run, keep=2, keep_every=8)
    assert _steps(run) == [8, 16, 20]
    rotate(run, keep=9)
    assert _steps(run) == [8, 16, 20]
    rotate(run, keep=1)
    assert _steps(run) == [20]


def test_rotation_never_removes_the_newest_whole_one(run: Path) -> None:
    _flip(snapshot_path(run, 12) / STATE)
    (snapshot_path(run, 8) / MANIFEST).unlink()
    rotate(run, keep=1)
    assert _steps(run) == [4, 12]


def test_a_removal_that_is_interrupted_leaves_no_half_under_a_name(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            rotate(run, keep=1)
    assert sorted(path.name for path in (run / "checkpoints").glob("step-*")) == ["step-00000012"]
    rotate(run, keep=1)
    assert _steps(run) == [12]


def test_what_comes_after_the_step_to_go_on_from_is_set_aside(run: Path) -> None:
    _flip(snapshot_path(run, 12) / STATE)
    (run / "checkpoints" / ".step-00000016.tmp-1-aaaa").mkdir()
    (run / ".config.yaml.tmp-1-aaaa").write_text("cut")
    set_aside(run, after=4)
    assert newest_snapshot(run) == (snapshot_path(run, 4), PROGRESS)
    names = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert [name[:13] for name in names] == ["step-00000004", "step-00000008", "step-00000012"]
    assert [path.name for path in run.iterdir()] == ["checkpoints"]
    _snapshot(run, 8)
    rotate(run, keep=1)
    assert newest_snapshot(run) == (snapshot_path(run, 8), replace(PROGRESS, step=8))
    assert len(list((run / "checkpoints").glob("*.aside-*"))) == 2


@pytest.mark.parametrize(
    ("place", "after"),
    [("uce.training.state.save_file", 0), ("os.mkdir", 0), ("os.replace", 2), *(("os.fsync", n) for n in range(10))],
)
def test_a_full_disk_leaves_the_older_ones_and_nothing_else(
    run: Path, place: str, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    module, _, name = place.rpartition(".")
    real = getattr(importlib.import_module(module), name)
    kind = SafetensorError if name == "save_file" else partial(OSError, 28)
    calls = iter(range(100))

    def full(*args: Any, **options: Any) -> Any:
        if next(calls) < after:
            return real(*args, **options)
        raise kind("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(place, full)
        with pytest.raises(StorageError, match=r"^.*No space left on device.*$"):  # one line
            _snapshot(run, 16)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert _steps(run) == [4, 8, 12]


def test_a_snapshot_is_a_model(tiny_folder: Path, tmp_path: Path) -> None:
    folder = snapshot_path(tmp_path, 4)
    shutil.copytree(tiny_folder, folder)
    add_state(folder, {"weights.a": torch.zeros(1)}, PROGRESS)
    seal(folder)
    assert newest_snapshot(tmp_path) == (folder, PROGRESS)
    assert load_model(folder).sha256 == load_model(tiny_folder).sha256
