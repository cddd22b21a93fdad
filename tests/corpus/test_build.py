"""A corpus from files: its counts are the source's, equal builds are equal, failures are listed, damage is found."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pytest
from scipy import sparse

from uce.cli.main import main
from uce.corpus.build import Built
from uce.corpus.verify import verify_corpus
from uce.errors import InputError, OutputExistsError, StorageError, UsageError
from uce.genes.collection import load_gene_table

Build = Callable[..., Built]
SHARD = "data/one/shard-00000.zarr"


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, by its relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def chunk_of(shard: Path, array: str) -> Path:
    """The file that holds the chunks of an array of counts."""
    return max(
        (path for path in (shard / "X" / array).rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
    )


def command(manifest: Path, out: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "uce", "corpus", "build", str(manifest), "-o", str(out), "--without", "mad", *options]


def test_every_stored_cell_has_the_counts_of_its_row_of_the_source(build: Build, tmp_path: Path) -> None:
    build()
    table = load_gene_table("human")
    columns = {gene: column for column, gene in enumerate(table.ids.tolist())}
    symbols = dict(zip(table.symbols.tolist(), table.ids.tolist(), strict=True))
    source = anndata.read_h5ad(tmp_path / "cells" / "one.h5ad")
    stored = anndata.io.read_zarr(tmp_path / "corpus" / SHARD)
    assert stored.n_vars == len(table)
    rows = stored.obs["src_row"].to_numpy().astype(int)
    assert sorted(rows.tolist()) == list(range(90))
    assert rows.tolist() != list(range(90))  # shuffled once, when it was built
    wanted = [columns[symbols[name]] for name in source.var_names]
    found = np.asarray(stored.X[:, wanted].todense(), dtype=float)
    np.testing.assert_array_equal(found, np.asarray(source.X[rows].todense(), dtype=float))
    assert stored.X.sum() == source.X.sum()


def test_equal_builds_have_equal_bytes_and_a_second_one_writes_nothing(
    build: Build, manifest: Path, tmp_path: Path
) -> None:
    first = build()
    before = content(tmp_path / "corpus")
    assert first.written == 2
    assert build().written == 0
    assert content(tmp_path / "corpus") == before
    build(out=tmp_path / "again")
    assert content(tmp_path / "again") == before


def test_two_workers_write_the_bytes_of_one(build: Build, manifest: Path, tmp_path: Path) -> None:
    build()
    subprocess.run(command(manifest, tmp_path / "two", "--workers", "2"), check=True, capture_output=True)
    assert content(tmp_path / "two") == content(tmp_path / "corpus")


def test_a_killed_build_goes_on_to_the_same_bytes(build: Build, manifest: Path, tmp_path: Path) -> None:
    build()
    out = tmp_path / "killed"
    with subprocess.Popen(command(manifest, out), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 300
        while not list(out.glob("data/*")) and time.monotonic() < deadline:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
    assert not verify_corpus(out).ok
    subprocess.run(command(manifest, out), check=True, capture_output=True)
    assert content(out) == content(tmp_path / "corpus")
    assert verify_corpus(out).ok


def test_a_dataset_that_fails_is_listed_and_the_others_are_built(
    build: Build, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cells" / "two.h5ad").write_bytes(b"no h5ad")
    code = main(["corpus", "build", str(manifest), "-o", str(tmp_path / "corpus"), "--without", "mad", "--quiet"])
    said = capsys.readouterr()
    assert code == InputError.exit_code
    assert "two" in said.out + said.err
    assert "no h5ad" not in said.err
    assert (tmp_path / "corpus" / SHARD).is_dir()
    assert verify_corpus(tmp_path / "corpus").ok
    assert "two" in (tmp_path / "corpus" / "report.md").read_text()


def test_cells_that_two_datasets_share_stay_in_the_first(build: Build, manifest: Path, tmp_path: Path) -> None:
    one = anndata.read_h5ad(tmp_path / "cells" / "one.h5ad")
    two = anndata.read_h5ad(tmp_path / "cells" / "two.h5ad")
    shared = one[10:30].copy()
    shared.obs_names = [f"again{i}" for i in range(20)]
    both = anndata.concat([two, shared], join="outer", fill_value=0)
    both.X = sparse.csr_matrix(both.X)
    both.write_h5ad(tmp_path / "cells" / "two.h5ad")
    build()
    assert "duplicates 20" in (tmp_path / "corpus" / "report.md").read_text()
    assert anndata.io.read_zarr(tmp_path / "corpus" / "data/two/shard-00000.zarr").n_obs == 40


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 3] ^= 4
    path.write_bytes(raw)


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a missing shard file": (lambda corpus: chunk_of(corpus / SHARD, "data").unlink(), "zarr would read zeros"),
    "a flipped bit": (lambda corpus: flip(chunk_of(corpus / SHARD, "data")), "changed since it was written"),
    "a truncated shard": (
        lambda corpus: (path := chunk_of(corpus / SHARD, "indices")).write_bytes(path.read_bytes()[:-9]),
        "were written",
    ),
    "a missing store": (lambda corpus: shutil.rmtree(corpus / "data/one"), "missing or damaged"),
    "a changed record": (
        lambda corpus: (path := corpus / "data/one/store.json").write_text(
            path.read_text().replace('"cells": 90', '"cells": 91')
        ),
        "changed since the corpus was written",
    ),
    "a record of another store": (
        lambda corpus: shutil.copy(corpus / "data/two/store.json", corpus / "data/one/store.json"),
        "changed since the corpus was written",
    ),
    "a store of a killed writer": (
        lambda corpus: (corpus / "data/three.tmp").mkdir(),
        "left by a killed writer",
    ),
    "a changed list of datasets": (lambda corpus: flip(corpus / "datasets.csv"), "changed since it was written"),
    "no index": (lambda corpus: (corpus / "corpus.json").unlink(), "corpus.json"),
    "a changed index": (
        lambda corpus: (path := corpus / "corpus.json").write_text(
            path.read_text().replace('"cells": 130', '"cells": 131')
        ),
        "corpus.json",
    ),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_damage_is_found_and_mended_by_building_again(
    fault: str, build: Build, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, words = FAULTS[fault]
    before = content(corpus)
    assert verify_corpus(corpus).ok
    damage(corpus)
    assert content(corpus) != before or fault == "a store of a killed writer"
    assert main(["corpus", "verify", str(corpus)]) != 0
    assert words in capsys.readouterr().out
    build()
    assert content(corpus) == before
    assert main(["corpus", "verify", str(corpus)]) == 0


def test_info_lists_the_datasets_without_opening_a_store(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(corpus / "data")
    assert main(["corpus", "info", str(corpus)]) == 0
    said = capsys.readouterr().out
    for words in ("one", "two", "homo_sapiens", "train", "test", "MIT", "CC0", "130 cells"):
        assert words in said


def test_a_folder_that_is_no_corpus_is_left_alone(build: Build, tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputExistsError, match=r"holds thesis.txt and is no corpus"):
        build()
    assert [path.name for path in (tmp_path / "corpus").iterdir()] == ["thesis.txt"]
    with pytest.raises(StorageError, match="cannot be made"):
        build(out=tmp_path / "corpus" / "thesis.txt" / "inside")
    with pytest.raises(UsageError, match="0 workers"):
        build(workers=0)


def test_real_cells_of_four_species_become_a_sound_corpus(shared: Path, tmp_path: Path) -> None:
    manifest = Path(__file__).parents[2] / "data_manifests" / "training_cells.csv"
    small = tmp_path / "small.csv"
    wanted = ("dataset,", "human_embryo", "mouse_es_mef", "dmel_gut", "human_breast_tumour")
    rows = manifest.read_text(encoding="utf-8").splitlines(keepends=True)
    small.write_text("".join(row for row in rows if row.startswith(wanted)))
    words = ["corpus", "build", str(small), "--folder", str(shared / "data"), "-o", str(tmp_path / "corpus"), "--quiet"]
    assert main(words) == 0
    assert verify_corpus(tmp_path / "corpus").ok
    source = anndata.read_h5ad(shared / "data" / "cells" / "dmel_gut_fca.h5ad")
    stored = anndata.io.read_zarr(tmp_path / "corpus" / "data/dmel_gut_fca/shard-00000.zarr")
    totals = np.asarray(source.X.sum(axis=1)).ravel()[stored.obs["src_row"].to_numpy().astype(int)]
    np.testing.assert_array_equal(stored.obs["total_counts_raw"].to_numpy(), totals)
