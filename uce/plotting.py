"""Pictures: a UMAP of cell vectors, coloured by columns of the cells."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from uce.cells.counts import open_counts
from uce.errors import InputError
from uce.files import atomic_path, picture_path
from uce.threads import torch_threads_kept

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_CELLS = 20_000
MANY_LABELS = 25


def check_columns(source: str | Path, columns: list[str]) -> None:
    """Refuse columns to colour by that `source` does not have, before any work.

    Raises
    ------
    UsageError
        Naming the column and the nearest one that is there.
    """
    if columns:
        with open_counts(source, policy="as-is") as counts:
            for column in columns:
                counts.obs_column(column)


def read_for_plot(
    path: str | Path, source: str | Path, *, key: str, columns: list[str]
) -> tuple[npt.NDArray[np.float32], dict[str, npt.NDArray[Any]]]:
    """Vectors (cells, dim) and columns of a result, at most 20,000 cells evenly spaced.

    `path` is what `uce.embed_file` wrote; columns of a `.npy` or Parquet result are read from `source`, its input.

    """
    import anndata as ad

    path, source = Path(path), Path(source)
    if path.suffix == ".h5ad":
        import h5py
        from anndata.io import read_elem

        with h5py.File(path, "r") as file:
            step = max(1, file["obsm"][key].shape[0] // MAX_CELLS)
            vectors = file["obsm"][key][::step]
            obs = read_elem(file["obs"])
    else:
        vectors = _read_vectors(path, key)
        step = max(1, len(vectors) // MAX_CELLS)
        vectors = vectors[::step]
        obs = ad.read_h5ad(source, backed="r").obs if columns else None
    return vectors, {column: obs[column].to_numpy()[::step] for column in columns}


def _read_vectors(path: Path, key: str) -> npt.NDArray[np.float32]:
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False, mmap_mode="r")  # type: ignore[no-any-return]
    import pyarrow.parquet as pq

    column = pq.read_table(path, columns=[key])[key].combine_chunks()
    flat = column.flatten().to_numpy()
    return flat.reshape(len(column), -1)  # type: ignore[no-any-return]


def umap_coordinates(vectors: npt.NDArray[np.float32], *, seed: int = 0) -> npt.NDArray[np.float32]:
    """Two-dimensional UMAP of unit vectors (cells, dim), cosine, by umap-learn through scanpy; NaN rows stay NaN.

    Raises
    ------
    InputError
        Fewer than four cells have a vector.
    """
    import warnings

    import anndata as ad
    import scanpy as sc

    there = ~np.isnan(vectors[:, 0])
    if there.sum() < 4:
        msg = f"a UMAP needs at least 4 cells with a vector, found {int(there.sum())}."
        raise InputError(msg)
    cells = ad.AnnData(np.ascontiguousarray(vectors[there]))
    with torch_threads_kept(), warnings.catch_warnings():
        # numba and umap-learn warn of their own future, and that a fixed seed runs on one thread.
        warnings.simplefilter("ignore")
        neighbours = min(15, int(there.sum()) - 1)
        # Exact: above 4,096 cells the default asks pynndescent, whose sparse arrays scanpy 1.11 cannot read.
        sc.pp.neighbors(
            cells, n_neighbors=neighbours, use_rep="X", metric="cosine", random_state=seed, transformer="sklearn"
        )
        sc.tl.umap(cells, random_state=seed, init_pos="spectral" if there.sum() > 10 else "random")
    out = np.full((len(vectors), 2), np.nan, np.float32)
    out[there] = cells.obsm["X_umap"]
    return out


def draw_umap(
    vectors: npt.NDArray[np.float32],
    columns: dict[str, npt.NDArray[Any]],
    path: str | Path,
    *,
    title: str,
    seed: int = 0,
) -> Path:
    """Draw a UMAP of `vectors` (cells, dim), one panel per column of labels or numbers, into a picture file.

    Raises
    ------
    UsageError
        The ending is not that of a picture.
    """
    import matplotlib as mpl

    path = picture_path(path)
    mpl.use("Agg")
    from matplotlib.figure import Figure

    points = umap_coordinates(vectors, seed=seed)
    panels = columns or {"": np.zeros(len(points))}
    figure = Figure(figsize=(7.5 * len(panels), 5.2), layout="constrained")
    for axes, (name, values) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        _draw_panel(axes, points, values, name)
    figure.suptitle(f"{title}: {len(points):,} cells")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, format=path.suffix.lower()[1:])
    return path


def _draw_panel(axes: "Axes", points: npt.NDArray[np.float32], values: npt.NDArray[Any], name: str) -> None:
    x, y = points.T
    size = float(np.clip(12_000 / max(1, len(points)), 0.5, 18))
    axes.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2", title=name)
    axes.set_aspect("equal", adjustable="datalim")
    if not name:
        axes.scatter(x, y, s=size, c="#4477aa", linewidths=0)
        return
    if np.issubdtype(values.dtype, np.number):
        drawn = axes.scatter(x, y, s=size, c=values.astype(float), cmap="viridis", linewidths=0)
        axes.figure.colorbar(drawn, ax=axes, shrink=0.7)
        return
    labels = np.array(["unknown" if value is None or pd.isna(value) else str(value) for value in values])
    kinds = sorted(set(labels), key=lambda kind: (-np.count_nonzero(labels == kind), kind))
    colours = _colours(len(kinds))
    for kind, colour in zip(kinds, colours, strict=True):
        where = labels == kind
        axes.scatter(x[where], y[where], s=size, color=colour, linewidths=0, label=f"{kind} ({where.sum():,})")
    if len(kinds) <= MANY_LABELS:
        axes.legend(
            loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8, markerscale=max(1, 5 / size**0.5)
        )


def _colours(count: int) -> list[Any]:
    import matplotlib as mpl

    if count <= 10:
        return [mpl.colormaps["tab10"](i) for i in range(count)]
    if count <= 20:
        return [mpl.colormaps["tab20"](i) for i in range(count)]
    return [mpl.colormaps["turbo"]((i * 0.618034) % 1.0) for i in range(count)]
