"""Runs in hostile surroundings: strange names and places, full memory, other runs, another locale."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pytest
import torch

import uce
from uce.cli.main import main
from uce.errors import InputError, StorageError, UsageError
from uce.model.encoder import Encoder

if TYPE_CHECKING:
    from uce.model.checkpoint import Model


@pytest.fixture
def source(make_cells: Callable[..., ad.AnnData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_cells().write_h5ad("in.h5ad")
    return tmp_path / "in.h5ad"


@pytest.mark.parametrize(
    "name", ["gän sefüße 😀.h5ad", "-n.h5ad", "a b\tc.h5ad", "x" * 120 + ".h5ad", "sub.h5ad.gz.h5ad"]
)
def test_any_file_name_works(source: Path, tiny_folder: Path, name: str) -> None:
    source.rename(name)
    assert main(["embed", f"./{name}", "--model", str(tiny_folder), "--species", "human"]) == 0
    results = [path for path in Path().iterdir() if path.name != name]
    assert len(results) == 1
    assert ad.read_h5ad(results[0]).obsm["X_uce"].shape == (60, 16)


def test_control_characters_do_not_reach_the_terminal(
    source: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = ad.read_h5ad(source)
    cells.var_names = [f"\x1b[31mgene\x07{i}" for i in range(cells.n_vars)]
    cells.write_h5ad("evil.h5ad")
    assert main(["embed", "evil.h5ad", "--model", str(tiny_folder), "--species", "human"]) == 3
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert "\x07" not in said


@pytest.mark.parametrize("address", ["https://example.org/cells.h5ad", "s3://bucket/cells.h5ad"])
def test_an_address_is_not_a_path(tiny_folder: Path, address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed", address, "--model", str(tiny_folder)]) == 3
    assert "Traceback" not in capsys.readouterr().err


def test_another_locale_changes_nothing(source: Path, tiny_folder: Path) -> None:
    command = [sys.executable, "-m", "uce", "embed", "in.h5ad", "--model", str(tiny_folder), "--species", "human"]
    environment = {**os.environ, "LC_ALL": "C", "LANG": "C", "PYTHONIOENCODING": "ascii", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, "--json"], env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["cells"] == 60


def test_memory_of_the_accelerator_running_out_halves_the_batches_and_keeps_the_numbers(
    source: Path, tiny_model: "Model", monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = ad.read_h5ad(source)
    uce.embed(cells, model=tiny_model, species="human", quiet=True)
    encode, sizes, refused = Encoder.encode, [], []

    def small_memory(self: Encoder, projected: torch.Tensor, **rest: Any) -> torch.Tensor:
        (refused if len(projected) > 2 else sizes).append(len(projected))
        if len(projected) > 2:
            raise torch.cuda.OutOfMemoryError
        return encode(self, projected, **rest)

    monkeypatch.setattr(Encoder, "encode", small_memory)
    again = ad.read_h5ad(source)
    uce.embed(again, model=tiny_model, species="human", quiet=True)
    assert max(sizes) == 2
    # What did not fit once is not tried again: each refusal halves what comes after it.
    assert refused == sorted(refused, reverse=True)
    assert len(refused) <= np.log2(max(refused)) + 1
    np.testing.assert_allclose(again.obsm["X_uce"], cells.obsm["X_uce"], atol=1e-6)


def test_a_second_run_to_the_same_output_is_refused(source: Path, tiny_model: "Model") -> None:
    held = {"host": socket.gethostname(), "pid": os.getppid()}
    Path("out.h5ad.lock").write_text(json.dumps(held))
    with pytest.raises(StorageError, match=f"process {os.getppid()} on .* is writing there"):
        uce.embed_file(source, "out.h5ad", model=tiny_model, species="human", quiet=True)
    assert not Path("out.h5ad.parts").exists()


def test_the_lock_of_a_dead_run_is_taken_over(source: Path, tiny_model: "Model") -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    Path("out.h5ad.lock").write_text(json.dumps({"host": socket.gethostname(), "pid": dead.pid}))
    uce.embed_file(source, "out.h5ad", model=tiny_model, species="human", quiet=True)
    assert Path("out.h5ad").exists()
    assert not Path("out.h5ad.lock").exists()


def test_dropping_an_unfinished_run_needs_one_process(
    source: Path, tiny_model: "Model", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="--no-resume: not under a launcher"):
        uce.embed_file(source, "out.h5ad", model=tiny_model, species="human", quiet=True, resume=False)


def test_an_unfinished_run_can_be_dropped(source: Path, tiny_model: "Model") -> None:
    Path("out.h5ad.parts").mkdir()
    Path("out.h5ad.parts/plan.json").write_text('{"seed": 9}')
    with pytest.raises(UsageError, match="pass --no-resume to drop it"):
        uce.embed_file(source, "out.h5ad", model=tiny_model, species="human", quiet=True)
    uce.embed_file(source, "out.h5ad", model=tiny_model, species="human", quiet=True, resume=False)
    assert Path("out.h5ad").exists()


def test_cells_without_genes_are_refused(source: Path, tiny_model: "Model") -> None:
    empty = ad.read_h5ad(source)[:, :0].copy()
    with pytest.raises(InputError, match="no genes"):
        uce.embed(empty, model=tiny_model, species="human", quiet=True)


def test_only_empty_cells_are_refused(source: Path, tiny_model: "Model") -> None:
    cells = ad.read_h5ad(source)
    cells.X = cells.X * 0
    with pytest.raises(InputError, match="no value above zero"):
        uce.embed(cells, model=tiny_model, species="human", quiet=True)


def test_a_planted_collapse_is_warned_of_and_still_written(
    source: Path, tiny_model: "Model", monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    encode = Encoder.encode

    def collapsed(self: Encoder, projected: torch.Tensor, **rest: Any) -> torch.Tensor:
        towards = torch.ones(tiny_model.config.out_dim)
        return torch.nn.functional.normalize(towards + 0.05 * encode(self, projected, **rest), dim=1)

    monkeypatch.setattr(Encoder, "encode", collapsed)
    outcome = uce.embed_file(source, "out.h5ad", model=tiny_model, species="human")
    assert not outcome.health.ok
    assert "warning: the cells hardly differ" in capsys.readouterr().err
    assert "another protein encoder" in outcome.record["health"]["warnings"][0]


def test_no_thread_reads_on_after_an_interrupt(
    make_cells: Callable[..., ad.AnnData],
    tiny_model: "Model",
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thread left in HDF5 when the file is closed can hold its lock for ever, and the process with it."""
    from uce.cells.counts import Counts
    from uce.cells.parts import Parts

    make_cells(cells=3000, genes=300).write_h5ad(tmp_path / "in.h5ad")
    reading, closed_while_reading = [], []
    go_on = threading.Event()
    read, close = Counts.read, Counts.close

    def slow(self: Counts, start: int, stop: int) -> object:
        if start != 1024:
            return read(self, start, stop)
        reading.append(start)  # the second block is still being read when the first one is interrupted
        go_on.wait(timeout=30)
        block = read(self, start, stop)
        reading.pop()
        return block

    def watched(self: Counts) -> None:
        closed_while_reading.append(bool(reading))
        close(self)

    def interrupted(self: Parts, number: int, block: object) -> None:
        threading.Timer(0.3, go_on.set).start()
        raise KeyboardInterrupt

    monkeypatch.setattr(Counts, "read", slow)
    monkeypatch.setattr(Counts, "close", watched)
    monkeypatch.setattr(Parts, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        uce.embed_file(tmp_path / "in.h5ad", tmp_path / "out.h5ad", model=tiny_model, species="human", quiet=True)
    assert closed_while_reading == [False]
