"""The demonstration: 700 real blood cells that travel inside scanpy, embedded and drawn, without a network."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from uce.embedding import embed_file
from uce.files import atomic_path, refuse_overwrite
from uce.plotting import draw_umap, read_for_plot

if TYPE_CHECKING:
    from anndata import AnnData

LABEL = "bulk_labels"


def demo_cells() -> "AnnData":
    """The 700 peripheral blood cells of `scanpy.datasets.pbmc68k_reduced()` (Zheng et al. 2017), as they are there.

    `X` is scaled and `.raw` log-normalised and rounded, so that this also shows how counts are recovered exactly.
    """
    import scanpy as sc

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of the old layout of scanpy's own file
        return sc.datasets.pbmc68k_reduced()


def run_demo(output: str | Path, *, overwrite: bool = False) -> list[Path]:
    """Write `<output>.h5ad` with `obsm["X_uce"]` and `<output>.png`, a UMAP coloured by cell type; returns both paths.

    Raises
    ------
    OutputExistsError
        One of them exists and `overwrite` is false.
    """
    output = Path(output)
    cells, picture = output.with_name(output.name + ".h5ad"), output.with_name(output.name + ".png")
    for path in (cells, picture):
        refuse_overwrite(path, overwrite=overwrite)
    original = output.with_name(f".{output.name}.cells.h5ad")
    try:
        with atomic_path(original) as temporary:
            demo_cells().write_h5ad(temporary)
        embed_file(original, cells, species="human", overwrite=overwrite)
    finally:
        original.unlink(missing_ok=True)
    vectors, columns = read_for_plot(cells, cells, key="X_uce", columns=[LABEL])
    draw_umap(vectors, columns, picture, title="uce-mini on scanpy's pbmc68k_reduced")
    return [cells, picture]
