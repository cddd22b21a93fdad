"""One result from many processes: shards, ranks and reruns make the bytes that one process makes."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import uce
from uce.atlas import Share, read_shard
from uce.cells.parts import BLOCK_CELLS, Parts
from uce.cli.main import main
from uce.errors import OutputExistsError, UsageError

if TYPE_CHECKING:
    from uce.model.checkpoint import Model

BLOCKS = 5
CELLS = BLOCKS * BLOCK_CELLS - 300


@pytest.fixture(scope="module")
def source(make_cells: Callable[..., ad.AnnData], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("atlas") / "in.h5ad"
    make_cells(cells=CELLS, genes=300).write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def straight(source: Path, tiny_model: "Model") -> np.ndarray:
    return vectors(run(source, source.with_name("straight.h5ad"), tiny_model))


def run(source: Path, output: Path, model: "Model", **options: object) -> Path:
    return uce.embed_file(source, output, model=model, species="human", quiet=True, **options).path


def vectors(path: Path) -> np.ndarray:
    return ad.read_h5ad(path).obsm["X_uce"]


def blocks(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in folder.glob("[0-9]*.npz"))


@given(st.integers(1, 40), st.integers(0, 500))
def test_shares_cover_every_block_once(of: int, count: int) -> None:
    shares = [list(Share(index, of).blocks(count)) for index in range(of)]
    assert sorted(number for share in shares for number in share) == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_shard_is_read_from_its_two_numbers() -> None:
    assert read_shard("0/1") == Share(0, 1)
    assert read_shard("11/12") == Share(11, 12)


@pytest.mark.parametrize(
    "text", ["", "1", "2/2", "3/2", "0/0", "-1/2", "1/-2", "a/b", "1/2/3", "0.5/2", "\u00b2/\u00b3"]
)
def test_a_shard_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"must be i/N .* 0 <= i < N"):
        read_shard(text)


def test_shards_leave_blocks_and_the_run_without_shard_writes_the_result(
    source: Path, straight: np.ndarray, tiny_model: "Model", tmp_path: Path
) -> None:
    output = tmp_path / "out.h5ad"
    first = uce.embed_file(source, output, model=tiny_model, species="human", quiet=True, shard="1/3")
    assert (first.health, first.blocks_there, first.blocks) == (None, 2, BLOCKS)
    assert blocks(tmp_path / "out.h5ad.parts") == [1, 4]
    last = uce.embed_file(source, output, model=tiny_model, species="human", quiet=True, shard="0/2")
    assert last.blocks_there == 4  # another number of shards goes on where the others were
    assert not output.exists()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out.h5ad.parts").glob("[0-9]*.npz")}
    uce.embed_file(source, output, model=tiny_model, species="human", quiet=True, shard="0/2")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # nothing is computed again
    np.testing.assert_array_equal(vectors(run(source, output, tiny_model)), straight)
    assert [path.name for path in tmp_path.iterdir()] == ["out.h5ad"]


def test_a_shard_that_finds_all_blocks_there_writes_the_result(
    source: Path, straight: np.ndarray, tiny_model: "Model", tmp_path: Path
) -> None:
    output = tmp_path / "out.h5ad"
    for index in range(2):
        assert not run(source, output, tiny_model, shard=f"{index}/2").exists()
    outcome = uce.embed_file(source, output, model=tiny_model, species="human", quiet=True, shard="0/2")
    assert outcome.health is not None
    np.testing.assert_array_equal(vectors(output), straight)
    assert not (tmp_path / "out.h5ad.parts").exists()
    with pytest.raises(OutputExistsError):
        run(source, output, tiny_model, shard="1/2")


def test_a_shard_leaves_the_writing_to_the_one_that_holds_the_lock(
    source: Path, tiny_model: "Model", tmp_path: Path
) -> None:
    from uce.locks import lock

    output = tmp_path / "out.h5ad"
    run(source, output, tiny_model, shard="0/1")
    with lock(tmp_path / "out.h5ad.lock"):
        outcome = uce.embed_file(source, output, model=tiny_model, species="human", quiet=True, shard="0/1")
    assert outcome.health is None
    assert outcome.blocks_there == BLOCKS
    assert not output.exists()


def test_shards_started_at_once_share_one_folder(
    source: Path, straight: np.ndarray, tiny_folder: Path, tiny_model: "Model", tmp_path: Path
) -> None:
    output = tmp_path / "out.h5ad"
    words = ["-m", "uce", "embed", str(source), "-o", str(output), "--model", str(tiny_folder), "--species", "human"]
    shards = [
        subprocess.Popen(
            [sys.executable, *words, "--shard", f"{index}/3", "--json"],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for index in range(3)
    ]
    said = [shard.communicate(timeout=300) for shard in shards]
    assert [shard.returncode for shard in shards] == [0, 0, 0], said
    assert max(json.loads(out)["blocks_there"] for out, _ in said) == BLOCKS
    assert blocks(tmp_path / "out.h5ad.parts") == list(range(BLOCKS))
    found = vectors(run(source, output, tiny_model))
    np.testing.assert_allclose(found, straight, atol=1e-6)  # this process may have another number of threads


def test_a_shard_of_another_plan_is_refused_and_the_difference_named(
    source: Path, tiny_model: "Model", tmp_path: Path
) -> None:
    run(source, tmp_path / "out.h5ad", tiny_model, shard="0/5")
    with pytest.raises(UsageError, match="unfinished run with seed 0, now 3"):
        run(source, tmp_path / "out.h5ad", tiny_model, shard="1/5", seed=3)
    assert blocks(tmp_path / "out.h5ad.parts") == [0]


def test_more_shards_than_blocks_do_no_harm(source: Path, tiny_model: "Model", tmp_path: Path) -> None:
    outcome = uce.embed_file(
        source, tmp_path / "out.h5ad", model=tiny_model, species="human", quiet=True, shard="70/100"
    )
    assert (outcome.blocks_there, outcome.blocks) == (0, BLOCKS)


def test_a_shard_whose_blocks_are_no_longer_needed_leaves_in_peace(
    source: Path, tiny_model: "Model", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.h5ad"
    write = Parts.write

    def overtaken(self: Parts, number: int, block: object) -> None:
        monkeypatch.setattr(Parts, "write", write)
        run(source, output, tiny_model)  # a run that needs no shard finishes while this one computes
        write(self, number, block)

    monkeypatch.setattr(Parts, "write", overtaken)
    outcome = uce.embed_file(source, output, model=tiny_model, species="human", quiet=True, shard="0/2")
    assert outcome.blocks_there == BLOCKS
    assert [path.name for path in tmp_path.iterdir()] == ["out.h5ad"]


def test_a_rerun_with_fewer_ranks_completes_what_a_lost_rank_left(
    source: Path, straight: np.ndarray, tiny_model: "Model", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.h5ad"
    run(source, output, tiny_model, shard="0/3")  # what rank 0 of 3 has done when the others are lost
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    run(source, output, tiny_model)
    assert blocks(tmp_path / "out.h5ad.parts") == [0, 1, 3]
    monkeypatch.setenv("RANK", "0")
    np.testing.assert_array_equal(vectors(run(source, output, tiny_model)), straight)


def test_a_rank_that_comes_after_the_result_was_written_does_not_wait(
    source: Path, tiny_model: "Model", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = run(source, tmp_path / "out.h5ad", tiny_model)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert uce.embed_file(source, output, model=tiny_model, species="human", quiet=True).health is None
    assert [path.name for path in tmp_path.iterdir()] == ["out.h5ad"]


def test_the_recipe_for_a_slurm_array_works_as_it_is_written(
    source: Path, straight: np.ndarray, tiny_folder: Path, tmp_path: Path
) -> None:
    script = Path(__file__).resolve().parents[1] / "scripts" / "embed_atlas.slurm"
    output = tmp_path / "out.h5ad"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for task in ({"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_MAX": "1"}, {}):
        assert not output.exists()
        done = subprocess.run(
            ["bash", str(script), str(source), str(output), "--model", str(tiny_folder), "--species", "human"],
            env={**os.environ, "PATH": path, **task},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert "resuming: 2 finished blocks" in done.stderr
    np.testing.assert_allclose(vectors(output), straight, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "environment", "words"),
    [
        (["--shard", "0/2", "--inplace"], {}, "--inplace: not with --shard"),
        (["--shard", "0/2", "--no-resume"], {}, "--no-resume: not under a launcher or with --shard"),
        (["--shard", "0/2", "--engine", "ray"], {}, "exclude each other"),
        (["--shard", "0/2"], {"WORLD_SIZE": "2", "RANK": "1"}, "--shard: not under a launcher"),
        (["--engine", "ray"], {"WORLD_SIZE": "2"}, "--engine ray: not under a launcher"),
        (["--ray-actors", "2"], {}, "--ray-actors: goes with --engine ray"),
        (["--engine", "ray", "--ray-actors", "0"], {}, "must be a whole number from 1"),
        (["--shard", "2/2"], {}, "0 <= i < N"),
    ],
)
def test_contradictions_are_refused_in_one_line(
    source: Path,
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    environment: dict[str, str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["embed", str(source), "--model", str(tiny_folder), "--species", "human", *options]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert words in said[0]
    assert not list(tmp_path.iterdir())
