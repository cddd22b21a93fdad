"""Archives by strangers: what is wanted comes out flat, everything else is refused or passed over."""

import gzip
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from uce.errors import ModelError, StorageError
from uce.model import archives
from uce.model.archives import unpack


def archive(folder: Path, *members: tuple[str, bytes] | tarfile.TarInfo) -> Path:
    path = folder / "a.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def out(path: Path, names: list[str], max_bytes: int = 10_000) -> dict[str, bytes]:
    folder = path.parent / "out"
    unpack(path, folder, names=names, max_bytes=max_bytes)
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*")}


def test_only_the_wanted_files_come_out_wherever_they_lie(tmp_path: Path) -> None:
    path = archive(
        tmp_path, special("d", tarfile.DIRTYPE), ("d/a.pt", b"A"), ("d/._a.pt", b"x"), ("./b.pt", b"B"), ("c", b"")
    )
    assert out(path, ["a.pt", "b.pt"]) == {"a.pt": b"A", "b.pt": b"B"}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("../a", b"x")], r"refused, because \.\./a leaves the folder"),
        ([("d/../../a", b"x")], r"leaves the folder"),
        ([("/tmp/a", b"x")], r"refused, because /tmp/a leaves the folder"),
        ([special("a", tarfile.SYMTYPE, "/etc/passwd")], r"a is neither a file nor a folder"),
        ([special("a", tarfile.LNKTYPE, "b")], r"is neither a file nor a folder"),
        ([special("a", tarfile.CHRTYPE)], r"is neither a file nor a folder"),
        ([special("a", tarfile.FIFOTYPE)], r"is neither a file nor a folder"),
        ([("d/a", b"x"), ("e/a", b"y")], r"e/a comes twice"),
        ([("a", b"x"), ("bomb", bytes(20_000))], r"bomb brings the archive above 10,000 bytes"),
        ([("b", b"x")], r"does not hold a\. Delete it"),
        ([special("a", tarfile.DIRTYPE)], r"does not hold a\."),
        ([("bad\x1b[31m", b"x"), ("bad\x1b[31m/../..", b"x")], r"because bad\\x1b\[31m/\.\./\.\. leaves"),
    ],
)
def test_a_hostile_archive_leaves_nothing(members: list[Any], message: str, tmp_path: Path) -> None:
    path = archive(tmp_path, *members)
    with pytest.raises(ModelError, match=message) as caught:
        out(path, ["a"])
    assert str(caught.value).startswith(str(path))
    assert [file.name for file in tmp_path.iterdir()] == ["a.tar.gz"]


def test_the_number_of_members_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_MOST_MEMBERS", 3)
    path = archive(tmp_path, *((f"f{i}", b"") for i in range(4)), ("a", b""))
    with pytest.raises(ModelError, match=r"f3 is one more than 3"):
        out(path, ["a"])


@pytest.mark.parametrize("keep", [0, 5, 100, -200])
def test_a_damaged_archive_is_one_clear_line(keep: int, tmp_path: Path) -> None:
    path = archive(tmp_path, ("a", bytes(range(256)) * 30), ("b", b"x" * 3000))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"a\.tar\.gz: (not a usable archive .*|does not hold a\. )Delete it"):
        out(path, ["a", "b"], max_bytes=10**6)
    assert not (tmp_path / "out").exists()


def test_junk_is_not_a_usable_archive(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(b"<html>" * 1000, mtime=0))
    with pytest.raises(ModelError, match=r"not a usable archive"):
        out(tmp_path / "a.tar.gz", ["a"])


def test_a_disk_without_room_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "extract", full)
    with pytest.raises(StorageError, match=r"cannot be unpacked to .*out \(No space left on device\)"):
        out(archive(tmp_path, ("a", b"x")), ["a"])
