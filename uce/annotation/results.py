"""The files of an annotation: the cells with their columns, a table of labels, a UMAP and a report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from uce.annotation.running import Run, Wishes
from uce.annotation.writing import write_h5ad
from uce.errors import UsageError
from uce.files import atomic_path, check_writable, refuse_overwrite


@dataclass(frozen=True)
class Outputs:
    """Where results go; None for what is not asked for."""

    cells: Path
    summary: Path
    picture: Path | None
    report: Path | None


@dataclass(frozen=True, eq=False)
class Annotated:
    """What `uce.annotate_file` did.

    Attributes
    ----------
    path, summary, picture, report
        The files; the last two are None where they were not asked for or there were too few cells to draw.
    facts
        The record, as in `uns`.
    """

    path: Path
    summary: Path
    picture: Path | None
    report: Path | None
    facts: dict[str, Any]


def outputs_beside(
    query: Path, output: str | Path | None, reference: Path, *, pictures: bool, overwrite: bool
) -> Outputs:
    """The files that will be written, `QUERY.annotated.h5ad` in the current folder and the others beside it.

    Raises
    ------
    UsageError
        The output is one of the inputs, or no `.h5ad`.
    OutputExistsError, StorageError
        A file is there and `overwrite` is false, or the folder cannot be written.
    """
    if output is None:
        name = query.name
        for ending in (".gz", ".h5ad", ".h5", ".zip", ".zarr"):
            name = name.removesuffix(ending)
        output = f"{name}.annotated.h5ad"
    cells = Path(output)
    if cells.suffix != ".h5ad":
        msg = f"{cells}: the result is an .h5ad file. Give --output a name that ends so."
        raise UsageError(msg)
    for given in (query, reference):
        if cells.exists() and given.exists() and cells.resolve() == given.resolve():
            msg = f"{cells}: output and input are one file. Choose another --output."
            raise UsageError(msg)
    summary, picture, report = (cells.with_suffix(ending) for ending in (".summary.tsv", ".umap.png", ".html"))
    for path in (cells, summary, *((picture, report) if pictures else ())):
        refuse_overwrite(path, overwrite=overwrite)
    check_writable(cells.parent)
    return Outputs(cells, summary, picture if pictures else None, report if pictures else None)


def write_results(run: Run, paths: Outputs, wishes: Wishes) -> Annotated:
    """Write every file, each in one step; the cells first, so that no fault of drawing loses them."""
    write_h5ad(paths.cells, run.query, run.columns, wishes.key_added, run.facts, key=wishes.key)
    with atomic_path(paths.summary) as temporary:
        summary: pd.DataFrame = run.facts["summary"]
        summary.to_csv(temporary, sep="\t", index=False, float_format="%.4g")
    drawn = None
    if paths.picture is not None and paths.report is not None:
        from uce.annotation.report import draw_umap, write_report

        drawn = draw_umap(run)
        if drawn is not None:
            with atomic_path(paths.picture) as temporary:
                temporary.write_bytes(drawn.both.data)
        write_report(run, drawn, paths.report)
    return Annotated(paths.cells, paths.summary, paths.picture if drawn else None, paths.report, run.facts)
