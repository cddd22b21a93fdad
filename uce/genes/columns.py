"""The columns of a file's gene annotation: which hold names, and which of them holds the names of a table."""

from typing import TYPE_CHECKING, Any

from uce.errors import UsageError
from uce.files import nearest, printable, shorten
from uce.genes.lookup import NameIndex, name_index
from uce.genes.names import split_id, split_prefix, tidy
from uce.genes.tables import GeneTable

if TYPE_CHECKING:
    import pandas as pd

INDEX = "index"


def names_in(var: "pd.DataFrame", column: str) -> list[str]:
    """The names in the index ("index") or a column of `var`, missing ones as ""."""
    import pandas as pd

    values = pd.Series(var.index) if column == INDEX else var[column]
    return ["" if missing else str(name) for name, missing in zip(values, values.isna(), strict=True)]


def text_columns(var: "pd.DataFrame") -> list[str]:
    """All columns of `var` that hold text, the index ("index") first."""
    import pandas as pd

    def holds_text(values: "pd.Series[Any]") -> bool:
        kind = values.dtype.categories.dtype if isinstance(values.dtype, pd.CategoricalDtype) else values.dtype
        return pd.api.types.is_object_dtype(kind) or pd.api.types.is_string_dtype(kind)

    return [INDEX, *(str(name) for name in var.columns if name != INDEX and holds_text(var[name]))]


def choose_column(var: "pd.DataFrame", table: GeneTable, *, column: str | None = None, file: str = "input") -> str:
    """The column of `var` with the most genes of `table`, by id or exact symbol; ids win where two are equal.

    Parameters
    ----------
    column
        What the user chose: "index" or a column's name; returned as it is if it exists.

    Raises
    ------
    UsageError
        There is no such column.
    """
    if column is not None:
        return check_column(var, column, file)
    index = name_index(table)
    scores = {name: _score(names_in(var, name), index) for name in text_columns(var)}
    return max(scores, key=lambda name: scores[name])


def check_column(var: "pd.DataFrame", column: str, file: str) -> str:
    """Return `column` if `var` has it.

    Raises
    ------
    UsageError
        It has not; the message lists the columns there are.
    """
    if column == INDEX or column in var.columns:
        return column
    columns = [INDEX, *map(str, var.columns)]
    msg = f"{file}: no gene column {printable(column)!r}.{nearest(column, columns)} There are: {shorten(columns)}."
    raise UsageError(msg)


def _score(names: list[str], index: NameIndex) -> tuple[int, int]:
    """How many genes are met, and how many of them by id."""
    distinct = {split_prefix(tidy(name))[1] for name in names}
    by_id = {row for name in distinct if (row := index.ids.get(split_id(name)[1])) is not None}
    by_symbol = {row for name in distinct if (row := index.symbols.get(name)) is not None}
    return len(by_id | by_symbol), len(by_id)
