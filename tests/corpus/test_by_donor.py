"""A shard holds cells of one split: by donor where the rule says so, and never under a split of yesterday."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest

from uce.corpus.build import Built
from uce.corpus.layout import read_index
from uce.corpus.shards import read_gene_columns, read_obs_column
from uce.corpus.splits import BY_DONOR, SPLITS, SplitRule
from uce.corpus.store import check_stores
from uce.corpus.verify import verify_corpus

from .conftest import cells_file, content, write_manifest

Build = Callable[..., Built]
HALF = SplitRule(by="donor", validation=0.34, test=0.33)


def record(corpus: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((corpus / "data" / name / "store.json").read_text()))


def splits(corpus: Path) -> dict[str, Any]:
    return dict(json.loads((corpus / "splits" / "main.json").read_text()))


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """`one` has six donors and a count beyond 16 bits in two of them, `two` names none, `three` is for testing."""
    obs = {"donor": [f"d{i % 6}" for i in range(90)]}
    adata = cells_file(tmp_path / "cells/one.h5ad", 90, seed=1, obs=obs)
    dense = adata.X.toarray()
    dense[[0, 1], 7] = 70_000
    adata.X = type(adata.X)(dense)
    adata.write_h5ad(tmp_path / "cells/one.h5ad")
    cells_file(tmp_path / "cells/two.h5ad", 40, seed=2)
    cells_file(tmp_path / "cells/three.h5ad", 30, seed=3, obs={"donor": ["d0"] * 30})
    rows: list[dict[str, object]] = [
        {"dataset_id": name, "path": f"cells/{name}.h5ad", "species": "human", "split": split}
        for name, split in (("one", ""), ("two", ""), ("three", "test"))
    ]
    return write_manifest(tmp_path / "manifest.csv", rows)


def test_every_shard_has_the_donors_of_its_split(build: Build, tmp_path: Path) -> None:
    build(splits=HALF)
    corpus = tmp_path / "corpus"
    donors = splits(corpus)["donors"]["one"]
    assert set(donors.values()) == set(SPLITS)
    rows: list[int] = []
    kinds = []
    for name, shard in record(corpus, "one")["shards"].items():
        stored = anndata.io.read_zarr(corpus / "data/one" / name)
        assert {donors[donor] for donor in stored.obs["donor"]} == {shard["split"]}
        assert stored.n_obs == shard["cells"]
        own = stored.obs["src_row"].astype(int).tolist()
        assert len(own) < 5 or own != sorted(own)  # in the shuffled order
        kinds.append((shard["split"], stored.X.data.dtype.name))
        rows += own
    assert sorted(rows) == list(range(90))
    assert len(kinds) == len(set(kinds)) == 3 + len({donors["d0"], donors["d1"]})  # wide cells have shards of their own
    assert verify_corpus(corpus).ok


def test_the_tables_say_which_datasets_are_split_by_donor(build: Build, tmp_path: Path) -> None:
    build(splits=HALF)
    corpus = tmp_path / "corpus"
    said = {row["dataset_id"]: row["split"] for row in read_index(corpus).datasets()}
    drawn = HALF.drawn("two")
    assert said == {"one": BY_DONOR, "two": drawn, "three": "test"}
    assert list(splits(corpus)["donors"]) == ["one"]
    assert two_splits(corpus) == {drawn}


def two_splits(corpus: Path) -> set[str]:
    return {shard["split"] for shard in record(corpus, "two")["shards"].values()}


def test_a_changed_rule_rewrites_only_what_was_assigned_anew(build: Build, tmp_path: Path) -> None:
    build(splits=HALF)
    assert build(splits=HALF).written == 0
    other = replace(HALF, salt="b")
    assert other.drawn("two") != HALF.drawn("two")
    assert build(splits=other).written == 1  # `one` alone
    assert two_splits(tmp_path / "corpus") == {other.drawn("two")}
    assert verify_corpus(tmp_path / "corpus").ok


def test_a_dataset_keeps_no_split_of_yesterday_and_its_shards_stay(build: Build, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    build(splits=SplitRule(test=1, validation=0))
    before = content(corpus / "data" / "two")
    assert build(splits=SplitRule(test=0, validation=1)).written == 0
    assert two_splits(corpus) == {"validation"}
    after = content(corpus / "data" / "two")
    assert [name for name in before if after[name] != before[name]] == ["store.json"]
    assert verify_corpus(corpus).ok
    build(splits=SplitRule(test=1, validation=0))
    assert content(corpus / "data" / "two") == before


def test_genes_and_labels_are_read_without_anndata(build: Build, tmp_path: Path) -> None:
    build()
    shard = tmp_path / "corpus/data/one/shard-00000.zarr"
    stored = anndata.io.read_zarr(shard)
    measured, seen = read_gene_columns(shard)
    np.testing.assert_array_equal(measured, stored.var["measured"])
    np.testing.assert_array_equal(seen, np.asarray((stored.X > 0).sum(axis=0)).ravel())
    assert seen[~measured].sum() == 0 < seen.max() <= stored.n_obs
    donors, rows = read_obs_column(shard, "donor"), read_obs_column(shard, "src_row")
    assert donors is not None
    assert donors.tolist() == stored.obs["donor"].tolist()
    assert rows is not None
    assert rows.tolist() == stored.obs["src_row"].tolist()
    assert read_obs_column(shard, "cell_type") is None


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file is missing": (lambda store: next(store.rglob("X/data/c/0")).unlink(), "missing; zarr would read zeros"),
    "a file is cut short": (lambda store: next(store.rglob("X/indices/c/0")).write_bytes(b"x"), "1 bytes"),
    "a file is too much": (lambda store: (store / "notes.txt").write_text("x"), "not of this store"),
    "the record is gone": (lambda store: (store / "store.json").unlink(), "missing or damaged"),
    "the record is another": (
        lambda store: (store / "store.json").write_text((store / "store.json").read_text() + " "),
        "changed since",
    ),
}


def test_an_incomplete_store_is_told_without_reading_it(build: Build, tmp_path: Path) -> None:
    build()
    assert check_stores(read_index(tmp_path / "corpus")) == []
    for number, (act, words) in enumerate(DAMAGES.values()):
        copy = shutil.copytree(tmp_path / "corpus", tmp_path / f"copy{number}")
        act(copy / "data/two")
        (problem,) = check_stores(read_index(copy))
        assert words in problem
        assert "data/two" in problem
