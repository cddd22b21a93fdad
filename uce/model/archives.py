"""Unpacking an archive that somebody else made, without trusting what is in it."""

import tarfile
import zlib
from pathlib import Path, PurePosixPath

from uce.errors import ModelError, StorageError
from uce.files import atomic_path, printable

MAX_MEMBERS = 1000


def unpack(archive: str | Path, folder: str | Path, *, max_bytes: int, max_members: int = MAX_MEMBERS) -> None:
    """Unpack a tar archive into `folder`, which must not exist yet; all of it or nothing.

    Parameters
    ----------
    max_bytes
        The most that all members together may take unpacked.

    Raises
    ------
    ModelError
        The archive is damaged, too large, or has a member that is a link or a device, leaves the folder or comes twice.
    StorageError
        The disk is full or cannot be written.
    """
    archive = Path(archive)
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        try:
            with tarfile.open(archive, mode="r|*") as tar:
                _extract(tar, temporary, archive=archive, max_bytes=max_bytes, max_members=max_members)
        except (tarfile.TarError, EOFError, zlib.error) as error:
            reason = printable(str(error), limit=200)
            msg = f"{archive}: not a usable archive ({reason}). Delete it and download it again."
            raise ModelError(msg) from error
        except OSError as error:
            msg = f"{archive}: cannot be unpacked to {folder} ({error.strerror or error}). Free some space."
            raise StorageError(msg) from error


def _extract(tar: tarfile.TarFile, folder: Path, *, archive: Path, max_bytes: int, max_members: int) -> None:
    seen: set[str] = set()
    total = 0
    for member in tar:
        problem = ""
        path = PurePosixPath(member.name)
        name = path.as_posix().casefold()  # some disks do not tell A from a
        total += member.size
        if not (member.isreg() or member.isdir()):
            problem = "is neither a file nor a folder"
        elif path.is_absolute() or ".." in path.parts:
            problem = "leaves the folder"
        elif name in seen:
            problem = "comes twice"
        elif len(seen) >= max_members:
            problem = f"is one more than {max_members}"
        elif total > max_bytes:
            problem = f"brings the archive above {max_bytes:,} bytes"
        if problem:
            msg = f"{archive}: refused, because {printable(member.name)} {problem}. Delete it and download it again."
            raise ModelError(msg)
        seen.add(name)
        tar.extract(member, folder, filter="data")
