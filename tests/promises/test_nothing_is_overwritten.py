"""Promise 3: no file and no key is overwritten unasked, and half-written output never carries the final name."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pytest

import uce
from uce.errors import InputError, OutputExistsError, StorageError, UsageError

if TYPE_CHECKING:
    from uce.model.checkpoint import Model


@pytest.fixture
def source(make_cells: Callable[..., ad.AnnData], tmp_path: Path) -> Path:
    make_cells().write_h5ad(tmp_path / "in.h5ad")
    return tmp_path / "in.h5ad"


def run(source: Path, output: Path | None, model: "Model", **options: object) -> Path:
    return uce.embed_file(source, output, model=model, species="human", quiet=True, **options).path


def test_an_output_that_exists_stays_and_is_named(source: Path, tiny_model: "Model", tmp_path: Path) -> None:
    (tmp_path / "out.h5ad").write_text("precious")
    with pytest.raises(OutputExistsError, match=r"out\.h5ad exists\. Choose another --output, or pass --overwrite"):
        run(source, tmp_path / "out.h5ad", tiny_model)
    assert (tmp_path / "out.h5ad").read_text() == "precious"
    run(source, tmp_path / "out.h5ad", tiny_model, overwrite=True)
    assert "X_uce" in ad.read_h5ad(tmp_path / "out.h5ad").obsm


def test_a_key_that_exists_stays_and_is_named(source: Path, tiny_model: "Model", tmp_path: Path) -> None:
    first = run(source, tmp_path / "out.h5ad", tiny_model)
    with pytest.raises(OutputExistsError, match=r"obsm\['X_uce'\] exists\. Choose another --key-added"):
        run(first, tmp_path / "second.h5ad", tiny_model)
    run(first, tmp_path / "second.h5ad", tiny_model, key_added="X_second", seed=4)
    written = ad.read_h5ad(tmp_path / "second.h5ad")
    assert sorted(written.obsm) == ["X_second", "X_uce"]
    assert written.uns["uce"]["X_uce"]["seed"] == 0
    assert written.uns["uce"]["X_second"]["seed"] == 4


def test_a_key_in_memory_stays_unless_overwriting_is_asked_for(source: Path, tiny_model: "Model") -> None:
    cells = ad.read_h5ad(source)
    cells.obsm["X_uce"] = np.zeros((cells.n_obs, 3))
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        uce.embed(cells, model=tiny_model, species="human", quiet=True)
    assert cells.obsm["X_uce"].shape == (60, 3)
    uce.embed(cells, model=tiny_model, species="human", quiet=True, overwrite=True)
    assert cells.obsm["X_uce"].shape == (60, 16)


def test_the_input_is_only_touched_when_asked(source: Path, tiny_model: "Model", tmp_path: Path) -> None:
    before = source.read_bytes()
    with pytest.raises(UsageError, match="output and input are one file"):
        run(source, source, tiny_model, overwrite=True)
    run(source, tmp_path / "out.h5ad", tiny_model)
    assert source.read_bytes() == before
    assert run(source, None, tiny_model, inplace=True) == source
    assert "X_uce" in ad.read_h5ad(source).obsm


def test_a_run_that_fails_leaves_nothing_under_the_final_name(
    source: Path, tiny_model: "Model", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_args: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("uce.outputs.add_embedding", full_disk)
    with pytest.raises(StorageError, match=r"out\.h5ad: cannot be written \(No space left"):
        run(source, tmp_path / "out.h5ad", tiny_model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.h5ad", "out.h5ad.parts"]


def test_a_missing_folder_is_noticed_before_any_work(source: Path, tiny_model: "Model", tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no such folder"):
        run(source, tmp_path / "absent" / "out.h5ad", tiny_model)


def test_a_file_that_changes_while_running_is_noticed(
    source: Path, tiny_model: "Model", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from uce.cells.counts import Counts

    prints = iter("ab")
    monkeypatch.setattr(Counts, "fingerprint", lambda _self: next(prints))
    with pytest.raises(InputError, match="changed while it was being read"):
        run(source, tmp_path / "out.h5ad", tiny_model)
    assert not (tmp_path / "out.h5ad").exists()


@pytest.mark.parametrize("key", ["", "a/b", "a\nb"])
def test_a_key_that_no_file_can_hold_is_refused(source: Path, tiny_model: "Model", key: str) -> None:
    with pytest.raises(UsageError, match="--key-added"):
        run(source, None, tiny_model, key_added=key)
