"""What a source says of its cells in words: donor, cell type, batch, assay, tissue."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from uce.cells.counts import Counts
from uce.corpus.manifest import DatasetRow

if TYPE_CHECKING:
    import pandas as pd

# Column of a store's obs -> field of the manifest's row, and the columns of a source it is taken from otherwise.
_TEXTS: dict[str, tuple[str, Sequence[str]]] = {
    "donor": ("donor_column", ("donor_id", "donor")),
    "cell_type": ("cell_type_column", ("cell_type_ontology_term_id", "cell_type")),
    "batch": ("batch_column", ("batch",)),
    "suspension_type": ("", ("suspension_type",)),
    "is_primary_data": ("", ("is_primary_data",)),
}


def assay_of(counts: Counts, row: DatasetRow) -> str:
    """The assay of the manifest, else those that obs names, joined by commas."""
    if row.assay or "assay" not in counts.obs_columns:
        return row.assay
    return ", ".join(sorted(set(counts.obs_column("assay").tolist())))


def donors_of(counts: Counts, row: DatasetRow) -> npt.NDArray[np.str_] | None:
    """(cells,) the donor of every cell of a source, None where it names none."""
    column = _source_column(counts, row, "donor")
    return counts.obs_column(column) if column else None


def with_texts(table: "pd.DataFrame", counts: Counts, row: DatasetRow) -> "pd.DataFrame":
    """Add what is known of the cells in words, as categories; what the manifest says goes before what obs says."""
    import pandas as pd

    texts: dict[str, Any] = {"dataset": row.name, "species": row.species}
    for name in _TEXTS:
        if column := _source_column(counts, row, name):
            texts[name] = counts.obs_column(column)[table["src_row"].to_numpy()]
    for name, said in (("assay", assay_of(counts, row)), ("tissue", row.tissue)):
        texts[name] = counts.obs_column(name)[table["src_row"]] if not said and name in counts.obs_columns else said
    for name, values in texts.items():
        table[name] = pd.Categorical([values] * len(table) if isinstance(values, str) else values)
    table.index = pd.Index([f"{row.name}:{number}" for number in table["src_row"].tolist()])
    return table


def _source_column(counts: Counts, row: DatasetRow, name: str) -> str:
    """The column of a source that a column of obs is taken from, "" where there is none."""
    field, usual = _TEXTS[name]
    wanted: str = getattr(row, field) if field else ""
    return wanted or next((column for column in usual if column in counts.obs_columns), "")
