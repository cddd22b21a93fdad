"""Finished pieces of an evaluation on disk, so that one that was killed goes on where it was."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uce.errors import UceError, UsageError
from uce.evaluation.results import Findings, Score, plain
from uce.files import atomic_path, make_folder, refuse_overwrite, write_json

_FOLDER = ".pieces"


@contextmanager
def report_folder(output: str | Path | None, *inputs: Any, overwrite: bool) -> Iterator[Path | None]:
    """The folder for a report, made before any work; if it was made for nothing, it is removed again.

    Raises
    ------
    UsageError
        It is one of the inputs.
    OutputExistsError
        It has a finished report and `overwrite` is false.
    StorageError
        It cannot be made or written.
    """
    if output is None:
        yield None
        return
    folder = Path(output)
    for given in inputs:
        if isinstance(given, str | Path) and folder.exists() and folder.resolve() == Path(given).resolve():
            msg = f"{folder}: output and input are one. Choose another --output."
            raise UsageError(msg)
    new = not folder.exists()
    make_folder(folder)
    stopped = (folder / _FOLDER).exists() and not (folder / "report.html").exists()
    refuse_overwrite(folder / "results.json", overwrite=overwrite or stopped)
    try:
        yield folder
    except UceError:
        if new:
            with suppress(OSError):  # it holds something
                folder.rmdir()
        raise


class Pieces:
    """Vectors and findings by name, kept in `folder/.pieces/<hash of the plan>`; without a folder nothing is kept.

    Parameters
    ----------
    folder
        Of the report.
    plan
        Plain values that decide every number. Another plan finds nothing of this one.
    """

    def __init__(self, folder: Path | None, plan: dict[str, Any]) -> None:
        self._root = None if folder is None else folder / _FOLDER
        digest = sha256(json.dumps(plain(plan), sort_keys=True).encode()).hexdigest()[:16]
        self._folder = None if self._root is None else make_folder(self._root / digest)

    def vectors(self, name: str, make: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
        """What `make` returns (cells, dim), or returned in an earlier run."""
        path = self._path(name, "npy")
        if path is not None and path.exists():
            stored: NDArray[np.float32] = np.load(path, allow_pickle=False)
            return stored
        made = make()
        if path is not None:
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                np.save(file, made, allow_pickle=False)
        return made

    def findings(self, name: str, make: Callable[[], Findings]) -> Findings:
        """What `make` returns, or returned in an earlier run. Failures are not kept: the next run tries again."""
        path = self._path(name, "json")
        if path is not None and path.exists():
            return _read(path)
        found = make()
        if path is not None and not any(score.status == "failed" for score in found.scores):
            _write(path, found)
        return found

    def drop(self) -> None:
        """Remove the pieces of this and of every other plan: the report is written."""
        if self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)

    def _path(self, name: str, ending: str) -> Path | None:
        if self._folder is None:
            return None
        return self._folder / f"{sha256(name.encode()).hexdigest()[:24]}.{ending}"


def _write(path: Path, found: Findings) -> None:
    with atomic_path(path.with_suffix(".npz")) as temporary, temporary.open("wb") as file:
        columns: dict[str, Any] = {key: _storable(values) for key, values in found.predictions.items()}
        np.savez(file, allow_pickle=False, **columns)
    write_json(path, {"scores": [asdict(score) for score in found.scores], "details": plain(found.details)})


def _storable(values: NDArray[Any]) -> NDArray[Any]:
    return values.astype(np.str_) if values.dtype.kind == "O" else values


def _read(path: Path) -> Findings:
    content = json.loads(path.read_text(encoding="utf-8"))
    scores = tuple(Score(**{**score, "by_subsample": tuple(score["by_subsample"])}) for score in content["scores"])
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as stored:
        return Findings(scores, content["details"], {key: stored[key] for key in stored.files})
