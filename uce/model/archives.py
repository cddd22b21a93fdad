"""Unpacking an archive that somebody else made, without trusting what is in it."""

import tarfile
import zlib
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from uce.errors import ModelError, StorageError
from uce.files import atomic_path, printable, shorten

_MOST_MEMBERS = 1000


def unpack(archive: str | Path, folder: str | Path, *, names: Collection[str], max_bytes: int) -> None:
    """Take the files `names` out of a tar archive, wherever they lie in it, into `folder`; all of them or nothing.

    Parameters
    ----------
    folder
        Must not exist yet.
    names
        File names, without folders. Other members are passed over, but must be harmless too.
    max_bytes
        The most that all members together may take unpacked.

    Raises
    ------
    ModelError
        A file is not there, or the archive is damaged, too large, or has a member that is a link or a device, leaves
        the folder or comes twice.
    StorageError
        The disk is full or cannot be written.
    """
    archive = Path(archive)
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        try:
            with tarfile.open(archive, mode="r|*") as tar:
                _extract(tar, temporary, archive=archive, names=names, max_bytes=max_bytes)
        except (tarfile.TarError, EOFError, zlib.error) as error:
            reason = printable(str(error), limit=200)
            msg = f"{archive}: not a usable archive ({reason}). Delete it and download it again."
            raise ModelError(msg) from error
        except OSError as error:
            msg = f"{archive}: cannot be unpacked to {folder} ({error.strerror or error}). Free some space."
            raise StorageError(msg) from error
        missing = sorted(name for name in names if not (temporary / name).is_file())
        if missing:
            msg = f"{archive}: does not hold {shorten(missing)}. Delete it and download it again."
            raise ModelError(msg)


def _extract(tar: tarfile.TarFile, folder: Path, *, archive: Path, names: Collection[str], max_bytes: int) -> None:
    seen: set[str] = set()
    total = 0
    for member in tar:
        path = PurePosixPath(member.name)
        total += member.size
        problem = ""
        if not (member.isreg() or member.isdir()):
            problem = "is neither a file nor a folder"
        elif path.is_absolute() or ".." in path.parts:
            problem = "leaves the folder"
        elif path.name in names and path.name in seen:
            problem = "comes twice"
        elif len(seen) >= _MOST_MEMBERS:
            problem = f"is one more than {_MOST_MEMBERS}"
        elif total > max_bytes:
            problem = f"brings the archive above {max_bytes:,} bytes"
        if problem:
            msg = f"{archive}: refused, because {printable(member.name)} {problem}. Delete it and download it again."
            raise ModelError(msg)
        seen.add(path.name if path.name in names else path.as_posix())
        if path.name in names and member.isreg():
            tar.extract(member.replace(name=path.name, deep=False), folder, filter="data")
