"""A corpus from files: its counts are the source's, equal builds are equal, failures are listed, nothing twice."""

import os
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

from uce.corpus import writing
from uce.corpus.build import Built, build_corpus
from uce.corpus.layout import read_index
from uce.corpus.quality import QualityRules
from uce.corpus.splits import SplitRule
from uce.corpus.verify import verify_corpus
from uce.corpus.writing import cell_order
from uce.errors import InputError, ModelError, OutputExistsError, StorageError, UsageError
from uce.genes.library import load_gene_table

Build = Callable[..., Built]
Content = Callable[[Path], dict[str, bytes]]
LOOSE = QualityRules(off=("mad",))


def stored(corpus: Path, name: str) -> anndata.AnnData:
    """The first shard of a dataset, as any scverse tool sees it."""
    return anndata.io.read_zarr(corpus / "data" / name / "shard-00000.zarr")


def by_gene(source: anndata.AnnData) -> sparse.csr_matrix:
    """(cells, genes of the human table) counts of a source whose names are symbols of it."""
    table = load_gene_table("human")
    rows = {symbol: row for row, symbol in enumerate(table.symbols.tolist())}
    columns = np.array([rows[name] for name in source.var_names])
    whole = sparse.csr_matrix(source.X).tocoo()
    return sparse.csr_matrix((whole.data, (whole.row, columns[whole.col])), shape=(source.n_obs, len(table)))


def test_the_counts_are_those_of_the_source(build: Build, tmp_path: Path) -> None:
    built = build()
    assert (built.datasets, built.cells, built.written, built.failed) == (2, 130, 2, {})
    source = anndata.read_h5ad(tmp_path / "cells/one.h5ad")
    adata = stored(tmp_path / "corpus", "one")
    rows = adata.obs["src_row"].to_numpy()
    assert sorted(rows.tolist()) == list(range(90))
    assert (sparse.csr_matrix(adata.X) != by_gene(source)[rows]).nnz == 0
    assert adata.var_names.tolist() == load_gene_table("human").ids.tolist()
    assert adata.var["measured"].sum() == source.n_vars
    assert adata.obs["donor"].tolist() == source.obs["donor"].iloc[rows].tolist()
    totals = np.asarray(source.X.sum(axis=1)).ravel()[rows]
    assert adata.obs["total_counts"].tolist() == adata.obs["total_counts_raw"].tolist() == totals.tolist()


def test_cells_are_shuffled_by_a_recorded_permutation(build: Build, tmp_path: Path) -> None:
    build()
    rows = stored(tmp_path / "corpus", "one").obs["src_row"].tolist()
    assert rows == cell_order(0, "one", 90).tolist() != list(range(90))


def test_the_permutation_is_frozen() -> None:
    assert cell_order(0, "one", 8).tolist() == [0, 1, 6, 4, 7, 3, 2, 5]
    assert cell_order(3, "one", 8).tolist() == [6, 4, 0, 1, 3, 7, 5, 2]
    assert sorted(cell_order(7, "two", 1000).tolist()) == list(range(1000))


def test_a_count_beyond_16_bits_goes_to_a_shard_of_its_own(
    build: Build, make_file: Callable[..., anndata.AnnData], tmp_path: Path
) -> None:
    source = make_file(tmp_path / "cells/one.h5ad", 90, seed=1)
    source.X[7, 3] = 70_000
    source.X[7, 4] = 65_535
    source.write_h5ad(tmp_path / "cells/one.h5ad")
    build()
    folder = tmp_path / "corpus/data/one"
    wide = anndata.io.read_zarr(folder / "shard-00001.zarr")
    assert wide.obs["src_row"].tolist() == [7]
    assert (sparse.csr_matrix(wide.X).astype(np.float64) != by_gene(source)[[7]]).nnz == 0
    assert stored(tmp_path / "corpus", "one").n_obs == 89


def test_large_datasets_are_several_shards(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "split_rows", lambda lengths, wide: split(lengths, wide, most=9000))
    split = __import__("uce.corpus.shards", fromlist=["split_rows"]).split_rows
    build()
    parts = [anndata.io.read_zarr(path) for path in sorted((tmp_path / "corpus/data/one").glob("*.zarr"))]
    assert len(parts) > 2
    rows = np.concatenate([part.obs["src_row"].to_numpy() for part in parts])
    assert rows.tolist() == cell_order(0, "one", 90).tolist()
    source = anndata.read_h5ad(tmp_path / "cells/one.h5ad")
    joined = sparse.vstack([part.X for part in parts]).tocsr()
    assert (joined != by_gene(source)[rows]).nnz == 0
    assert verify_corpus(tmp_path / "corpus").ok


def test_columns_of_one_gene_are_added_up(build: Build, tmp_path: Path) -> None:
    path = tmp_path / "cells/two.h5ad"
    source = anndata.read_h5ad(path)
    table = load_gene_table("human")
    ids = dict(zip(table.symbols.tolist(), table.ids.tolist(), strict=True))
    twice = anndata.concat([source, source], axis=1)
    twice.obs = source.obs
    names = [*source.var_names, *(ids[name] for name in source.var_names)]
    twice.var_names = names
    twice.X = twice.X.tocsr()
    twice.write_h5ad(path)
    build()
    adata = stored(tmp_path / "corpus", "two")
    assert (adata.X != (2 * by_gene(source))[adata.obs["src_row"].to_numpy()]).nnz == 0


def test_two_workers_give_the_bytes_of_one(build: Build, tmp_path: Path, content: Content) -> None:
    build()
    build(out=tmp_path / "again", workers=2)
    assert content(tmp_path / "corpus") == content(tmp_path / "again")


def test_a_second_build_writes_nothing(build: Build, tmp_path: Path, content: Content) -> None:
    build()
    before = content(tmp_path / "corpus")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "corpus/data").rglob("*")}
    assert build().written == 0
    assert content(tmp_path / "corpus") == before
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "corpus/data").rglob("*")} == times


def test_only_what_has_changed_is_written(
    build: Build, make_file: Callable[..., anndata.AnnData], tmp_path: Path
) -> None:
    build()
    make_file(tmp_path / "cells/two.h5ad", 30, seed=9)
    built = build()
    assert (built.written, built.cells) == (1, 120)
    assert verify_corpus(tmp_path / "corpus").ok
    assert build(rules=QualityRules(off=("mad",), max_cells=35)).cells == 65


def test_a_damaged_store_is_written_again(build: Build, tmp_path: Path) -> None:
    build()
    (tmp_path / "corpus/data/one/shard-00000.zarr/X/data/c/0").unlink()
    assert build().written == 1
    assert verify_corpus(tmp_path / "corpus").ok


def test_a_cell_of_two_datasets_stays_in_the_first(
    build: Build, make_file: Callable[..., anndata.AnnData], tmp_path: Path
) -> None:
    one = anndata.read_h5ad(tmp_path / "cells/one.h5ad")
    two = anndata.read_h5ad(tmp_path / "cells/two.h5ad")
    order = np.random.default_rng(3).permutation(one.n_vars)
    repeated = one[[5, 8, 8], order].copy()
    both = anndata.concat([two, repeated], join="outer", fill_value=0, index_unique="-")
    both.write_h5ad(tmp_path / "cells/two.h5ad")
    built = build()
    assert built.cells == 130
    assert stored(tmp_path / "corpus", "two").n_obs == 40
    facts = report(tmp_path)["datasets"]["two"]
    assert (facts["cells"], facts["removed"]["duplicates"], facts["kept"]) == (43, 3, 40)
    assert build(rules=QualityRules(off=("mad", "duplicates"))).cells == 133


def report(tmp_path: Path) -> dict[str, dict[str, dict[str, dict[str, int]]]]:
    import json

    return json.loads((tmp_path / "corpus/report.json").read_text())  # type: ignore[no-any-return]


def test_every_filter_is_in_the_report_and_adds_up(
    manifest: Path, make_file: Callable[..., anndata.AnnData], make_manifest: Callable[..., Path], tmp_path: Path
) -> None:
    obs: dict[str, object] = {
        "is_primary_data": [i != 0 for i in range(60)],
        "predicted_doublet": [str(i == 1) for i in range(60)],
        "tissue": ["lung" if i != 2 else "liver" for i in range(60)],
    }
    source = make_file(tmp_path / "cells/three.h5ad", 60, seed=4, obs=obs)
    source.X[3, 100:] = 0
    source.X.eliminate_zeros()
    source.write_h5ad(tmp_path / "cells/three.h5ad")
    row = {"dataset_id": "three", "path": "cells/three.h5ad", "species": "human", "filter": "tissue == 'lung'"}
    build_corpus(make_manifest(manifest, [row]), tmp_path / "corpus", rules=LOOSE)
    facts = report(tmp_path)["datasets"]["three"]
    gone = {name: count for name, count in facts["removed"].items() if count}
    assert gone == {"expression": 1, "primary": 1, "doublets": 1, "min_genes": 1}
    assert facts["kept"] == 56
    page = (tmp_path / "corpus/report.md").read_text()
    assert "56 of 60 cells of 1 datasets are kept" in page
    assert "| three | 60 | 56 | expression 1, primary 1, doublets 1, min_genes 1 |" in page


def test_failures_are_listed_and_the_rest_is_built(
    manifest: Path, make_manifest: Callable[..., Path], tmp_path: Path
) -> None:
    good = {"dataset_id": "one", "path": "cells/one.h5ad", "species": "human"}
    (tmp_path / "cells/text.h5ad").write_text("no cells")
    rows = [
        good,
        {"dataset_id": "text", "path": "cells/text.h5ad", "species": "human"},
        {"dataset_id": "gone", "path": "cells/gone.h5ad", "species": "human"},
        {"dataset_id": "changed", "path": "cells/two.h5ad", "species": "human", "sha256": "0" * 64},
        {"dataset_id": "strange", "path": "cells/two.h5ad", "species": "Plasmodium berghei"},
        {"dataset_id": "afar", "path": "https://example.org/a.h5ad", "species": "human"},
        {"dataset_id": "mouse", "path": "cells/two.h5ad", "species": "mouse"},
        {"dataset_id": "filter", "path": "cells/two.h5ad", "species": "human", "filter": "organ == 'lung'"},
    ]
    built = build_corpus(make_manifest(manifest, rows), tmp_path / "corpus", rules=LOOSE)
    assert (built.datasets, built.cells) == (1, 90)
    reasons = {
        "text": "a text file",
        "gone": "no such file",
        "changed": "the manifest says 000000000000",
        "strange": "no gene table of plasmodium_berghei",
        "afar": "uce corpus fetch",
        "mouse": "human",
        "filter": "no column 'organ'",
    }
    assert list(built.failed) == list(reasons)
    for name, words in reasons.items():
        assert words in built.failed[name]
        assert "\n" not in built.failed[name]
    assert read_index(tmp_path / "corpus").content["failed"] == built.failed


def test_no_usable_dataset_is_an_error(manifest: Path, make_manifest: Callable[..., Path], tmp_path: Path) -> None:
    rows = [{"dataset_id": "gone", "path": "cells/gone.h5ad", "species": "human"}]
    with pytest.raises(InputError, match="no dataset of the manifest can be used; the first: .*no such file"):
        build_corpus(make_manifest(manifest, rows), tmp_path / "corpus")
    with pytest.raises(InputError, match="was not finished"):
        read_index(tmp_path / "corpus")


def test_another_folder_is_not_built_into(build: Build, tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/thesis.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"holds thesis.txt and is no corpus"):
        build()
    with pytest.raises(OutputExistsError, match="is a file"):
        build(out=tmp_path / "corpus/thesis.txt")


def test_another_gene_table_is_refused(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build()
    table = load_gene_table("human")
    other = type(table).from_rows(
        species=table.species, encoder=table.encoder, ids=table.ids[:-1], symbols=table.symbols[:-1],
        vectors=table.vectors[:-1],
    )  # fmt: skip
    for module in ("build", "layout"):
        monkeypatch.setattr(f"uce.corpus.{module}.load_gene_table", lambda *_, **__: other)
    with pytest.raises(ModelError, match=r"the gene table of homo_sapiens .* the corpus was built with"):
        build()
    assert any("gene table" in problem for problem in verify_corpus(tmp_path / "corpus").problems)


def test_another_kind_of_tables_is_refused(build: Build) -> None:
    build()
    with pytest.raises(UsageError, match="of kind orthogroups-v1, not esm2"):
        build(encoder="esm2_t33_650M_UR50D")


def test_two_builds_do_not_meet(build: Build, tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/.lock").write_text(f'{{"host": "{os.uname().nodename}", "pid": {os.getpid()}}}')
    with pytest.raises(StorageError, match="is writing there"):
        build()


def test_a_full_disk_is_one_line(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "write_shard", full)
    with pytest.raises(StorageError, match="No space left on device"):
        build()
    assert verify_corpus(tmp_path / "corpus").problems
    monkeypatch.undo()
    assert build().written == 2
    assert verify_corpus(tmp_path / "corpus").ok


def test_no_dataset_of_a_held_out_species_may_be_for_training(build: Build) -> None:
    with pytest.raises(InputError, match="line 2: one is for training, but its species homo_sapiens is held out"):
        build(splits=SplitRule(held_out=("human",)))


def test_a_build_killed_at_any_moment_goes_on_to_the_same_bytes(
    build: Build, manifest: Path, tmp_path: Path, content: Content
) -> None:
    build()
    out = tmp_path / "killed"
    code = (
        "import sys; from uce.corpus.build import build_corpus; from uce.corpus.quality import QualityRules\n"
        "build_corpus(sys.argv[1], sys.argv[2], rules=QualityRules(off=('mad',)))"
    )
    seen = 0
    for wanted in ("surveys/*.npz", "data/*.tmp/shard-00000.zarr", "data/two/store.json"):
        child = subprocess.Popen([sys.executable, "-c", code, str(manifest), str(out)])
        deadline = time.monotonic() + 60
        while child.poll() is None and not any(out.glob(wanted)) and time.monotonic() < deadline:
            time.sleep(0.001)
        child.send_signal(signal.SIGKILL)
        seen += child.wait() == -signal.SIGKILL
        if not (out / "corpus.json").exists():
            assert not verify_corpus(out).ok
    assert seen
    build(out=out)
    left = content(out)
    # What guards the takeover of a dead owner's lock stays.
    assert {name: data for name, data in left.items() if name != ".lock.guard"} == content(tmp_path / "corpus")


def test_a_source_that_is_a_folder_is_hashed_whole(build: Build, manifest: Path, tmp_path: Path) -> None:
    source = anndata.read_h5ad(tmp_path / "cells/two.h5ad")
    source.write_zarr(tmp_path / "cells/two.zarr")
    manifest.write_text(manifest.read_text().replace("two.h5ad", "two.zarr"))
    assert build().cells == 130
    assert build().written == 0


def test_the_corpus_of_the_real_cells_equals_its_sources(shared: Path, tmp_path: Path) -> None:
    whole = Path(__file__).resolve().parents[2] / "data_manifests/training_cells.csv"
    lines = whole.read_text(encoding="utf-8").splitlines()
    some = [line for line in lines if line.startswith(("dataset,", "human_embryo_blakeley", "dmel_gut_fca"))]
    (tmp_path / "manifest.csv").write_text("\n".join(some))
    built = build_corpus(tmp_path / "manifest.csv", tmp_path / "corpus", folder=shared / "data")
    assert (built.datasets, built.failed) == (2, {})
    for name in ("human_embryo_blakeley", "dmel_gut_fca"):
        source = anndata.read_h5ad(shared / f"data/cells/{name}.h5ad")
        adata = stored(tmp_path / "corpus", name)
        rows = adata.obs["src_row"].to_numpy()
        assert adata.obs["cell_type"].notna().all()
        raw = np.asarray(source.X.sum(axis=1)).ravel()[rows]
        assert adata.obs["total_counts_raw"].tolist() == raw.tolist()
        assert np.asarray(adata.X.sum(axis=1)).ravel().tolist() == adata.obs["total_counts"].tolist()
        symbols = dict(
            zip(load_gene_table(read_species(tmp_path, name)).symbols.tolist(), adata.var_names, strict=True)
        )
        shown = [gene for gene in source.var_names if gene in symbols][::500]
        ours = adata[:, [symbols[gene] for gene in shown]].X.toarray()
        theirs = source[rows][:, shown].X
        assert (ours == np.asarray(theirs.todense() if sparse.issparse(theirs) else theirs)).mean() > 0.999
    assert verify_corpus(tmp_path / "corpus").ok


def read_species(tmp_path: Path, name: str) -> str:
    return next(row["species"] for row in read_index(tmp_path / "corpus").datasets() if row["dataset_id"] == name)


def test_hashes_of_equal_cells_are_in_the_store(build: Build, tmp_path: Path) -> None:
    build()
    hashes = stored(tmp_path / "corpus", "one").obs["cell_hash"]
    assert hashes.dtype == np.uint64
    assert hashes.nunique() == 90
