"""What may go wrong with the disk or with the corpus that is there: full, another's, of other gene tables."""

import errno
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from uce.corpus import writing
from uce.corpus.build import Built, build_corpus
from uce.corpus.layout import INDEX, digest, read_index
from uce.corpus.quality import QualityRules
from uce.corpus.shards import read_obs_column
from uce.corpus.splits import SplitRule
from uce.corpus.store import check_stores
from uce.corpus.verify import verify_corpus
from uce.errors import InputError, ModelError, OutputExistsError, StorageError, UsageError

from .conftest import cells_file, content, write_manifest

Build = Callable[..., Built]


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


PLACES = ["zarr.storage.LocalStore.set", "numpy.savez", "uce.corpus.layout.csv.DictWriter"]  # store, survey, table


@pytest.mark.parametrize("place", PLACES)
def test_a_full_disk_is_one_line_and_no_corpus(
    place: str, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(place, full)
        with pytest.raises(StorageError, match=r"cannot be written \(No space left on device\)") as caught:
            build()
    assert "\n" not in str(caught.value)
    assert verify_corpus(tmp_path / "corpus").problems
    assert build().cells == 130
    assert verify_corpus(tmp_path / "corpus").ok


def test_another_gene_table_is_refused(build: Build, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content(corpus)
    monkeypatch.setattr("uce.corpus.layout.load_gene_table", lambda *_, **__: SimpleNamespace(sha256="0" * 64))
    with pytest.raises(ModelError, match=r"the gene table of homo_sapiens .* is 000000000000.*build a corpus in anoth"):
        build()
    assert any("gene table" in problem for problem in verify_corpus(corpus).problems)
    assert content(corpus) == before


@pytest.mark.usefixtures("corpus")
def test_another_kind_of_tables_is_refused(build: Build) -> None:
    with pytest.raises(UsageError, match="of kind orthogroups-v1, not esm2"):
        build(encoder="esm2_t33_650M_UR50D")


def test_a_corpus_of_an_older_form_is_built_anew(build: Build, corpus: Path) -> None:
    before = content(corpus)
    index = json.loads((corpus / INDEX).read_text()) | {"version": 1}
    del index["sha256"]
    (corpus / INDEX).write_text(json.dumps(index | {"sha256": digest(index)}))
    with pytest.raises(InputError, match=r"written by an older uce. Give the build command again"):
        read_index(corpus)
    store = corpus / "data/one/store.json"
    store.write_text(store.read_text().replace('"format": 2', '"format": 1'))
    assert build().written == 1
    assert content(corpus) == before


def test_two_builds_do_not_meet(build: Build, tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    owner = json.dumps({"host": socket.gethostname(), "pid": os.getpid()})
    (tmp_path / "corpus/.lock").write_text(owner)
    with pytest.raises(StorageError, match="is writing there"):
        build()


def test_a_file_is_not_built_into(build: Build, tmp_path: Path) -> None:
    (tmp_path / "corpus").write_text("mine")
    with pytest.raises(OutputExistsError, match="is a file"):
        build()


def test_no_usable_dataset_is_an_error(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"dataset_id": "gone", "path": "cells/gone.h5ad", "species": "human"}]
    with pytest.raises(InputError, match=r"no dataset of the manifest can be used; the first: .*no such file"):
        build_corpus(write_manifest(tmp_path / "m.csv", rows), tmp_path / "corpus")
    with pytest.raises(InputError, match="was not finished"):
        read_index(tmp_path / "corpus")


def test_no_dataset_of_a_held_out_species_may_be_for_training(build: Build) -> None:
    with pytest.raises(InputError, match="line 2: one is for training, but its species homo_sapiens is held out"):
        build(splits=SplitRule(held_out=("human",)))


def test_the_permutation_is_frozen() -> None:
    assert writing.cell_order(0, "one", 8).tolist() == [0, 1, 6, 4, 7, 3, 2, 5]
    assert writing.cell_order(3, "one", 8).tolist() == [6, 4, 0, 1, 3, 7, 5, 2]
    assert sorted(writing.cell_order(7, "two", 1000).tolist()) == list(range(1000))


def test_a_large_dataset_is_several_shards(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = writing.split_rows
    monkeypatch.setattr(writing, "split_rows", lambda lengths, kinds: split(lengths, kinds, most=15_000))
    build()
    shards = json.loads((tmp_path / "corpus/data/one/store.json").read_text())["shards"]
    assert len(shards) > 2
    rows = [row for name in shards for row in read_obs_column(tmp_path / "corpus/data/one" / name, "src_row").tolist()]
    assert rows == writing.cell_order(0, "one", 90).tolist()
    assert verify_corpus(tmp_path / "corpus").ok
    assert check_stores(read_index(tmp_path / "corpus")) == []


def test_every_filter_is_in_the_report_and_adds_up(tmp_path: Path) -> None:
    obs: dict[str, object] = {
        "is_primary_data": [i != 0 for i in range(60)],
        "predicted_doublet": [str(i == 1) for i in range(60)],
        "tissue": ["lung" if i != 2 else "liver" for i in range(60)],
    }
    source = cells_file(tmp_path / "three.h5ad", 60, seed=4, obs=obs)
    dense = source.X.toarray()
    dense[3, 100:] = 0
    source.X = type(source.X)(dense)
    source.write_h5ad(tmp_path / "three.h5ad")
    row: dict[str, object] = {"dataset_id": "three", "path": "three.h5ad", "species": "human"}
    manifest = write_manifest(tmp_path / "m.csv", [row | {"filter": "tissue == 'lung'"}])
    build_corpus(manifest, tmp_path / "corpus", rules=QualityRules(off=("mad",)))
    facts = json.loads((tmp_path / "corpus/report.json").read_text())["datasets"]["three"]
    gone = {name: count for name, count in facts["removed"].items() if count}
    assert gone == {"expression": 1, "primary": 1, "doublets": 1, "min_genes": 1}
    page = (tmp_path / "corpus/report.md").read_text()
    assert "56 of 60 cells of 1 datasets are kept" in page
    assert "| three | 60 | 56 | expression 1, primary 1, doublets 1, min_genes 1 |" in page
