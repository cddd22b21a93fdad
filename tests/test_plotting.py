"""Pictures: drawn from sound vectors, refused with a line where they cannot be."""

from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from uce.errors import InputError, UsageError
from uce.plotting import draw_umap, umap_coordinates


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((3, 12))[np.arange(60) % 3] + 0.1 * rng.standard_normal((60, 12))
    rows[7] = np.nan
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_kinds_of_cells_stay_together_and_missing_ones_stay_missing(vectors: np.ndarray) -> None:
    points = umap_coordinates(vectors)
    assert np.isnan(points[7]).all()
    kinds = np.arange(60) % 3
    centres = np.stack([np.nanmean(points[kinds == kind], axis=0) for kind in range(3)])
    there = ~np.isnan(points[:, 0])
    nearest = np.linalg.norm(points[there, None] - centres, axis=2).argmin(axis=1)
    assert (nearest == kinds[there]).all()


def test_the_same_vectors_give_the_same_picture(vectors: np.ndarray) -> None:
    np.testing.assert_array_equal(umap_coordinates(vectors), umap_coordinates(vectors))


@pytest.mark.parametrize("ending", [".png", ".svg"])
def test_a_picture_has_a_panel_per_column(vectors: np.ndarray, tmp_path: Path, ending: str) -> None:
    many = np.array([f"kind {i % 30}" for i in range(60)], dtype=object)
    many[3] = None
    columns = {"depth": np.arange(60.0), "kind": many, "few": np.array(["a", "b"] * 30)}
    path = draw_umap(vectors, columns, tmp_path / f"map{ending}", title="t")
    assert path.stat().st_size > 10_000


def test_what_is_not_a_picture_is_refused(vectors: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"map\.txt: not a picture"):
        draw_umap(vectors, {}, tmp_path / "map.txt", title="t")


def test_too_few_cells_are_refused(vectors: np.ndarray) -> None:
    with pytest.raises(InputError, match="at least 4 cells"):
        umap_coordinates(vectors[5:9])


def test_neighbours_of_many_cells_are_found_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above 4,096 cells scanpy asks another library by default, whose sparse arrays it cannot always read."""
    import scanpy as sc

    seen = []

    def lay_out(cells: ad.AnnData, **_: object) -> None:
        seen.append(cells.obsp["distances"].getnnz(axis=1))
        cells.obsm["X_umap"] = np.zeros((cells.n_obs, 2), np.float32)

    monkeypatch.setattr(sc.tl, "umap", lay_out)
    points = umap_coordinates(np.random.default_rng(0).standard_normal((4200, 3)).astype(np.float32))
    assert points.shape == (4200, 2)
    assert (seen[0] == 14).all()
