"""What a manifest may name: zarr, 10x output, addresses; and what is refused of it, each dataset by itself."""

import gzip
import http.server
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import anndata
import numpy as np
import pytest
from scipy import io, sparse

from uce.cli.main import main
from uce.corpus.build import Built, build_corpus
from uce.corpus.layout import read_index
from uce.corpus.quality import QualityRules
from uce.errors import InputError
from uce.genes.collection import load_gene_table
from uce.model import catalogue

from .conftest import cells_file, content, write_manifest

LOOSE = QualityRules(off=("mad",))
HUMAN = {"species": "human", "split": "train"}


def stored_counts(corpus: Path, name: str) -> sparse.csr_matrix:
    """(cells in the order of the source, genes) of a dataset of one shard."""
    adata = anndata.io.read_zarr(corpus / "data" / name / "shard-00000.zarr")
    return sparse.csr_matrix(adata.X)[np.argsort(adata.obs["src_row"].to_numpy())]


def tenx_folder(folder: Path, source: anndata.AnnData) -> None:
    folder.mkdir()
    ids = dict(zip(*(getattr(load_gene_table("human"), name).tolist() for name in ("symbols", "ids")), strict=True))
    io.mmwrite(folder / "matrix.mtx", sparse.coo_matrix(source.X.T).astype(np.int64))
    (folder / "matrix.mtx.gz").write_bytes(gzip.compress((folder / "matrix.mtx").read_bytes()))
    (folder / "matrix.mtx").unlink()
    genes = "".join(f"{ids[name]}\t{name}\tGene Expression\n" for name in source.var_names)
    (folder / "features.tsv.gz").write_bytes(gzip.compress(genes.encode()))
    (folder / "barcodes.tsv.gz").write_bytes(gzip.compress("\n".join(source.obs_names).encode()))


def test_one_matrix_in_three_formats_gives_one_content(tmp_path: Path) -> None:
    source = cells_file(tmp_path / "plain.h5ad", 40, seed=2)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Writing zarr v2", category=UserWarning)
        source.write_zarr(tmp_path / "store.zarr")
    tenx_folder(tmp_path / "tenx", source)
    paths = {"plain": "plain.h5ad", "store": "store.zarr", "tenx": "tenx"}
    manifest = write_manifest(tmp_path / "m.csv", [{"dataset_id": n, "path": p, **HUMAN} for n, p in paths.items()])
    rules = QualityRules(off=("mad", "duplicates"))
    built = build_corpus(manifest, tmp_path / "corpus", rules=rules)
    assert (built.datasets, built.cells, built.failed) == (3, 120, {})
    plain, store, tenx = (stored_counts(tmp_path / "corpus", name) for name in paths)
    assert plain.sum() == source.X.sum()
    assert (plain != store).nnz == (plain != tenx).nnz == 0
    assert build_corpus(manifest, tmp_path / "corpus", rules=rules).written == 0
    (tmp_path / "tenx" / "barcodes.tsv.gz").write_bytes(gzip.compress(b"\n".join(b"x%d" % i for i in range(40))))
    assert build_corpus(manifest, tmp_path / "corpus", rules=rules).written == 1


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that a server shows; https://cells.test/ leads there, as it has no certificate."""
    folder = tmp_path / "shown"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))  # type: ignore[arg-type]

        def log_message(self, *_args: object) -> None:
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    fetch = catalogue.fetch

    def led(url: str, path: Path, **options: object) -> None:
        here = f"http://127.0.0.1:{running.server_port}/"
        fetch(url.replace("https://cells.test/", here), path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(catalogue, "fetch", led)
    yield folder
    running.shutdown()
    running.server_close()
    thread.join()


def test_addresses_are_fetched_and_built(server: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells_file(server / "a.h5ad", 40, seed=2)
    rows = [{"dataset_id": name, "path": f"https://cells.test/{name}.h5ad", **HUMAN} for name in ("a", "gone")]
    manifest = str(write_manifest(tmp_path / "m.csv", rows))
    assert main(["corpus", "fetch", manifest, "-o", str(tmp_path / "data"), "--quiet"]) == InputError.exit_code
    assert "1 files fetched, 0 were there, 1 failed" in capsys.readouterr().out
    assert (tmp_path / "data" / "a.h5ad").read_bytes() == (server / "a.h5ad").read_bytes()
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["a.h5ad"]
    built = build_corpus(manifest, tmp_path / "corpus", folder=tmp_path / "data", rules=LOOSE)
    assert built.cells == 40
    assert "uce corpus fetch" in built.failed["gone"]


def test_failures_are_listed_each_with_its_reason(tmp_path: Path) -> None:
    cells_file(tmp_path / "one.h5ad", 60, seed=1)
    cells_file(tmp_path / "two.h5ad", 40, seed=2)
    (tmp_path / "text.h5ad").write_text("no cells")
    bad: dict[str, tuple[dict[str, object], str]] = {
        "text": ({"path": "text.h5ad"}, "a text file"),
        "gone": ({"path": "gone.h5ad"}, "no such file"),
        "changed": ({"sha256": "0" * 64}, "the manifest says 000000000000"),
        "strange": ({"species": "Plasmodium berghei"}, "no gene table of rodent malaria parasite (plasmodium_berghei)"),
        "afar": ({"path": "https://example.org/a.h5ad"}, "uce corpus fetch"),
        "filter": ({"filter": "organ == 'lung'"}, "no column 'organ'"),
    }
    rows: list[dict[str, object]] = [{"dataset_id": "one", "path": "one.h5ad", **HUMAN}]
    rows += [{"dataset_id": name, "path": "two.h5ad", **HUMAN, **facts} for name, (facts, _) in bad.items()]
    built = build_corpus(write_manifest(tmp_path / "m.csv", rows), tmp_path / "corpus", rules=LOOSE)
    assert (built.datasets, built.cells, list(built.failed)) == (1, 60, list(bad))
    for name, (_, words) in bad.items():
        assert words in built.failed[name]
        assert "\n" not in built.failed[name]
    assert read_index(tmp_path / "corpus").content["failed"] == built.failed


def test_human_symbols_under_the_name_of_mouse_are_left_out(tmp_path: Path) -> None:
    cells_file(tmp_path / "one.h5ad", 60, seed=1)
    cells_file(tmp_path / "two.h5ad", 40, seed=2)
    rows = [
        {"dataset_id": "one", "path": "one.h5ad", "species": "human"},
        {"dataset_id": "two", "path": "two.h5ad", "species": "mouse"},
    ]
    manifest = write_manifest(tmp_path / "m.csv", rows)
    built = build_corpus(manifest, tmp_path / "corpus", rules=LOOSE)
    assert (built.datasets, built.cells, built.failed) == (1, 60, {})
    said = next(row for row in read_index(tmp_path / "corpus").datasets() if row["dataset_id"] == "two")
    assert said["left_out"].startswith("case: most gene names fit the species only when case is ignored")
    assert said["left_out"] in (tmp_path / "corpus/report.md").read_text()
    assert build_corpus(manifest, tmp_path / "again", rules=QualityRules(off=("mad", "case"))).datasets == 2


def test_columns_of_one_gene_are_added_up(tmp_path: Path) -> None:
    source = cells_file(tmp_path / "two.h5ad", 40, seed=2)
    table = load_gene_table("human")
    ids = dict(zip(table.symbols.tolist(), table.ids.tolist(), strict=True))
    again = source.copy()
    again.var_names = [ids[name] for name in source.var_names]
    twice = anndata.concat([source, again], axis=1)
    twice.X = sparse.csr_matrix(twice.X)
    twice.write_h5ad(tmp_path / "twice.h5ad")
    rows = [{"dataset_id": name, "path": f"{name}.h5ad", **HUMAN} for name in ("two", "twice")]
    build_corpus(write_manifest(tmp_path / "m.csv", rows), tmp_path / "corpus", rules=LOOSE)
    once = stored_counts(tmp_path / "corpus", "two")
    assert (stored_counts(tmp_path / "corpus", "twice") != 2 * once).nnz == 0


def test_only_what_has_changed_is_written(build: Callable[..., Built], corpus: Path, tmp_path: Path) -> None:
    before = content(corpus / "data/one")
    cells_file(tmp_path / "cells/two.h5ad", 30, seed=9)
    built = build()
    assert (built.written, built.cells) == (1, 120)
    assert content(corpus / "data/one") == before
    shutil.rmtree(corpus / "surveys")  # only a help to memory
    assert build().written == 0
