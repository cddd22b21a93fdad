"""The process of scib-metrics: started once, asked about one embedding after another, ended with its owner."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray


class Worker:
    """The process that holds jax; it starts with the first question, and ends with this object or the interpreter.

    Parameters
    ----------
    threads
        Of its linear algebra.
    """

    def __init__(self, threads: int = 2) -> None:
        self._threads = threads
        self._process: subprocess.Popen[str] | None = None
        self._log: IO[bytes] | None = None
        self._finalizer: Any = None

    def ask(self, arrays: dict[str, NDArray[Any]], parts: list[str]) -> dict[str, Any]:
        """The fields `parts` of the table of one embedding; see `scib_worker` for the arrays and the answer.

        Raises
        ------
        RuntimeError
            The process ended; with its last words. The next question starts another.
        """
        with tempfile.TemporaryDirectory(prefix="uce-scib-") as folder:
            for name, values in arrays.items():
                np.save(Path(folder, f"{name}.npy"), np.ascontiguousarray(values), allow_pickle=False)
            return self._exchange({"folder": folder, "parts": parts})

    def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        except BaseException:  # an answer that nobody waited for must not be taken for the next one
            self.close()
            raise
        if not line:
            raise RuntimeError(self._last_words(process))
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process and give its memory back."""
        if self._finalizer is not None:
            self._finalizer()
        self._process = self._log = self._finalizer = None

    def _running(self) -> "subprocess.Popen[str]":
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed by `_end`
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "uce.evaluation.scib_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=_environment(self._threads),
            text=True,
            encoding="utf-8",
        )
        self._finalizer = weakref.finalize(self, _end, self._process, self._log)
        return self._process

    def _last_words(self, process: "subprocess.Popen[str]") -> str:
        assert self._log is not None
        code = process.wait()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        self.close()
        last = lines[-1] if lines else "killed, perhaps as memory ran out" if code < 0 else "no message"
        return f"the process of scib-metrics ended with code {code}: {last}"


def _environment(threads: int) -> dict[str, str]:
    path = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    fixed = {
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "PYTHONWARNINGS": "ignore",
        "PYTHONHASHSEED": "0",
        "JAX_PLATFORMS": "cpu",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {**os.environ, **fixed, **dict.fromkeys(names, str(threads))}


def _end(process: "subprocess.Popen[str]", log: IO[bytes]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.kill()
    process.wait()
    process.stdout.close()
    with contextlib.suppress(BrokenPipeError):  # what was not written yet has no reader any more
        process.stdin.close()
    log.close()
