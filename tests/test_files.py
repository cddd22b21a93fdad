"""What is written takes its final name whole, and flushed."""

import os
from pathlib import Path

import pytest

from uce.errors import StorageError
from uce.files import atomic_path


def test_a_folder_is_flushed_with_all_that_is_in_it_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    sync = os.fsync

    def noted(descriptor: int) -> None:
        assert not (tmp_path / "folder").exists() or os.fstat(descriptor).st_ino == tmp_path.stat().st_ino
        flushed.append(os.fstat(descriptor).st_ino)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    with atomic_path(tmp_path / "folder") as temporary:
        (temporary / "inner").mkdir(parents=True)
        (temporary / "inner" / "file").write_text("x")
        (temporary / "link").symlink_to("nowhere")
    paths = [tmp_path / "folder" / name for name in ("", "inner", "inner/file")]
    assert sorted(flushed) == sorted(path.stat().st_ino for path in [*paths, tmp_path])
    assert flushed[-1] == tmp_path.stat().st_ino


def test_a_flush_without_room_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    def write() -> None:
        with atomic_path(tmp_path / "folder") as temporary:
            temporary.mkdir()
            (temporary / "file").write_text("x")

    with pytest.raises(StorageError, match=r"folder: cannot be written \(No space left"):
        write()
    assert list(tmp_path.iterdir()) == []
