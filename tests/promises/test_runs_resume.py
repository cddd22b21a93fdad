"""Promise 4: a run that was killed goes on where it was, to the same bytes; several ranks make the same file as one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

import uce
from uce.errors import UsageError

CELLS = 2_500  # three blocks, the last one short


@pytest.fixture(scope="module")
def source(make_cells: Callable[..., ad.AnnData], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("resume") / "in.h5ad"
    make_cells(cells=CELLS, genes=600).write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def straight(source: Path, tiny_folder: Path) -> np.ndarray:
    path = source.with_name("straight.h5ad")
    # In a process like those it is compared with: another number of threads may round otherwise.
    words = command(source, path, tiny_folder)
    subprocess.run([sys.executable, *words], env=environment(), check=True, capture_output=True)
    return ad.read_h5ad(path).obsm["X_uce"]


def command(source: Path, output: Path, model: Path) -> list[str]:
    return ["-m", "uce", "embed", str(source), "-o", str(output), "--model", str(model), "--species", "human"]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


def test_killed_after_any_block_it_resumes_to_equal_bytes(
    source: Path, straight: np.ndarray, tiny_folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.h5ad"
    process = subprocess.Popen(
        [sys.executable, *command(source, output, tiny_folder)], env=environment(), stderr=subprocess.DEVNULL
    )
    first = tmp_path / "out.h5ad.parts" / "000000.npz"
    while not first.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not output.exists()
    assert first.exists()
    stamp = first.stat().st_mtime_ns
    again = subprocess.run(
        [sys.executable, *command(source, output, tiny_folder)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    assert "resuming:" in again.stderr
    assert not first.exists()
    assert stamp
    np.testing.assert_array_equal(ad.read_h5ad(output).obsm["X_uce"], straight)


def test_finished_blocks_are_not_computed_again(
    source: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from uce import engines

    uce.embed_file(source, tmp_path / "straight.h5ad", model=tiny_folder, species="human", quiet=True)
    straight = ad.read_h5ad(tmp_path / "straight.h5ad").obsm["X_uce"]

    ranges: list[tuple[int, int]] = []
    stream = engines.stream_blocks

    def stop_after_two(counts: object, readers: object, species: object, wanted: list, **options: object) -> object:
        ranges.append(tuple(wanted))
        for number, block in enumerate(stream(counts, readers, species, wanted, **options)):
            if len(ranges) == 1 and number == 2:
                raise KeyboardInterrupt
            yield block

    monkeypatch.setattr("uce.jobs.stream_blocks", stop_after_two)
    output = tmp_path / "out.h5ad"
    with pytest.raises(KeyboardInterrupt):
        uce.embed_file(source, output, model=tiny_folder, species="human", quiet=True)
    with pytest.raises(UsageError, match=r"unfinished run with seed 0, now 1"):
        uce.embed_file(source, output, model=tiny_folder, species="human", quiet=True, seed=1)
    uce.embed_file(source, output, model=tiny_folder, species="human", quiet=True)
    assert ranges == [((0, 1024), (1024, 2048), (2048, 2500)), ((2048, 2500),)]
    np.testing.assert_array_equal(ad.read_h5ad(output).obsm["X_uce"], straight)


def test_two_ranks_make_the_file_of_one(source: Path, straight: np.ndarray, tiny_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.h5ad"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launch, *command(source, output, tiny_folder)],
        env=environment(ACCELERATE_USE_CPU="true"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("cells in") == 1  # rank 0 alone speaks
    np.testing.assert_array_equal(ad.read_h5ad(output).obsm["X_uce"], straight)


def test_interrupted_by_a_person_it_says_how_to_go_on(source: Path, tiny_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.h5ad"
    process = subprocess.Popen(
        [sys.executable, *command(source, output, tiny_folder)], env=environment(), stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "out.h5ad.parts" / "plan.json").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, words = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "Run the same command again" in words
    assert "Traceback" not in words
    assert not output.exists()


def test_other_species_of_the_cells_are_another_plan(
    make_cells: Callable[..., ad.AnnData], tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = make_cells(cells=20)
    cells.obs["a"] = ["human", "rhesus"] * 10
    cells.obs["b"] = ["rhesus", "human"] * 10
    cells.write_h5ad(tmp_path / "in.h5ad")
    monkeypatch.setattr("uce.atlas.write_h5ad", lambda *_args, **_options: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # stopped with all blocks there, before the result is written
        uce.embed_file(tmp_path / "in.h5ad", tmp_path / "o.h5ad", model=tiny_folder, species_key="a", quiet=True)
    with pytest.raises(UsageError, match="species_key 'a', now 'b'"):
        uce.embed_file(tmp_path / "in.h5ad", tmp_path / "o.h5ad", model=tiny_folder, species_key="b", quiet=True)
