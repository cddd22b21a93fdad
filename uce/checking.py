"""Verdicts: whether a source can be embedded (`check`), and whether a result is what it says it is (`verify`)."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uce.cells.counts import Policy, open_counts
from uce.devices import check_precision, pick_device
from uce.engines import Settings, embed_rows
from uce.errors import InputError, ModelError, UceError, UsageError
from uce.files import printable, shorten
from uce.genes.resolver import MIN_SHARE
from uce.jobs import prepare_job
from uce.model.checkpoint import Model, load_model

if TYPE_CHECKING:
    from anndata import AnnData

TOLERANCE = {"fp32": 1e-5, "bf16": 2e-2}


@dataclass(frozen=True)
class Report:
    """The verdict of `check`.

    Attributes
    ----------
    file, cells, genes, kind, slot
        What was opened: name, size, format, and where its counts are.
    species
        Per species: how it was found, and every gene name accounted for.
    notes, problems
        What was found and done, and what stands in the way of embedding.
    """

    file: str
    cells: int = 0
    genes: int = 0
    kind: str = ""
    slot: str = ""
    species: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the source can be embedded."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        return {"ok": self.ok, **asdict(self), "notes": list(self.notes), "problems": list(self.problems)}

    def __str__(self) -> str:
        lines = [f"{self.file}: {'can be embedded' if self.ok else 'cannot be embedded'}"]
        if self.kind:
            lines.append(f"  {self.cells:,} cells, {self.genes:,} gene names, {self.kind}, counts in {self.slot}")
        for name, facts in self.species.items():
            lines.append(f"  species {name} ({facts['reason']})")
            lines.append(
                f"  {facts['resolved']:,} names resolved, {facts['counts_resolved']:.1%} of the counts; "
                + ", ".join(f"{reason} {count:,}" for reason, count in facts["reasons"].items())
            )
        lines += [f"  note: {note}" for note in self.notes]
        lines += [f"  problem: {problem}" for problem in self.problems]
        return "\n".join(lines)


def check(
    source: "str | Path | AnnData",
    *,
    model: str | Path | Model = "uce-mini",
    species: str | None = None,
    species_key: str | None = None,
    gene_column: str | None = None,
    min_coverage: float = MIN_SHARE,
    layer: str | None = None,
    use_raw: bool = False,
    counts_policy: Policy = "invert",
    genome: str | None = None,
) -> Report:
    """Say whether `source` can be embedded with `model`, and why not: counts, species and genes, without computing.

    The parameters are those of :func:`uce.embed_file`. A source that cannot be embedded is a report with problems,
    not an exception; a model or an option that is wrong raises as elsewhere.

    Raises
    ------
    UsageError, ModelError
        An option or the model is not usable.
    """
    loaded = model if isinstance(model, Model) else load_model(model)
    name = printable(str(source), limit=200) if isinstance(source, str | Path) else "AnnData"
    report = Report(name)
    settings = Settings(pick_device("cpu"), check_precision("fp32"))
    try:
        with open_counts(source, layer=layer, use_raw=use_raw, policy=counts_policy, genome=genome) as counts:
            report = Report(name, counts.n_cells, len(counts.var), counts.kind, counts.slot, notes=tuple(counts.notes))
            job = prepare_job(
                counts,
                loaded,
                settings,
                species=species,
                species_key=species_key,
                gene_column=gene_column,
                min_coverage=min_coverage,
                counts_policy=counts_policy,
            )
            matches = {kind: reader.match for kind, reader in job.readers.items()}
            details = {kind: {"reason": match.reason, **match.report} for kind, match in matches.items()}
            warnings = [warning for match in matches.values() for warning in match.warnings]
            return replace(report, species=details, notes=(*report.notes, *warnings))
    except (UsageError, ModelError):
        raise
    except UceError as error:
        return replace(report, problems=(str(error),))


@dataclass(frozen=True)
class Verdict:
    """The verdict of `verify`: how far stored and recomputed vectors of a sample of cells differ.

    Attributes
    ----------
    largest_difference
        Largest absolute difference of any number of a unit vector.
    tolerance
        What is allowed for: rounding on another kind of device.
    """

    file: str
    key: str
    cells: int
    largest_difference: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether the stored vectors are those that the record describes."""
        return self.largest_difference <= self.tolerance

    def to_dict(self) -> dict[str, Any]:
        """The verdict as plain values, for JSON."""
        return {"ok": self.ok, **asdict(self)}

    def __str__(self) -> str:
        word = "verified" if self.ok else "NOT what its record says"
        return (
            f"{self.file}: obsm[{self.key!r}] {word}: {self.cells} cells recomputed, largest difference "
            f"{self.largest_difference:.1e} (allowed {self.tolerance:.0e})"
        )


def verify(
    path: str | Path, *, key: str = "X_uce", cells: int = 64, model: str | Path | Model | None = None
) -> Verdict:
    """Recompute a sample of cells of a `.h5ad` that uce has written, as its record says, and compare.

    Parameters
    ----------
    path
        The result; its counts must still be in it.
    key
        Which `obsm`.
    cells
        How many cells, evenly spaced.
    model
        The model, where the recorded name is not installed here; its hash must be the recorded one.

    Raises
    ------
    InputError
        The file has no such result or no record of it.
    ModelError
        The model or a gene table is not the one the record names.
    """
    path = Path(path)
    record, stored = _read_result(path, key)
    try:
        loaded = model if isinstance(model, Model) else load_model(model or str(record["model"]))
    except ModelError as error:
        hint = "" if model else " A record names no folder; give that of the model with --model."
        msg = f"{error}{hint}"
        raise ModelError(msg) from error
    if loaded.sha256 != record["model_sha256"]:
        msg = f"{path}: was made by model {record['model_sha256'][:12]}, {loaded.name} is {loaded.sha256[:12]}."
        raise ModelError(msg)
    precision = str(record["precision"])
    settings = Settings(
        pick_device("auto"),
        check_precision(precision),
        int(record["seed"]),
        int(record["replicates"]),
        cycles=int(record["cycles"]) if "cycles" in record else None,
    )
    slot = str(record["counts_slot"]).removeprefix("layers/")
    tables, columns = dict(record["species"]), dict(record["gene_column"])
    species = next(iter(tables)) if len(tables) == 1 else None
    column = next(iter(columns.values()))
    with open_counts(path, layer=slot, policy=record["counts_policy"]) as counts:
        job = prepare_job(
            counts,
            loaded,
            settings,
            counts_policy=str(record["counts_policy"]),
            species=species,
            species_key=None if species else str(record["species_key"]),
            gene_column=None if column == "index" else str(column),
            min_coverage=0.0,  # it was enough for whoever made the result
        )
        for name, reader in job.readers.items():
            if reader.match.table.sha256 != tables.get(name):
                msg = f"{path}: the gene table of {name} is another than the one that made it. Install that one."
                raise ModelError(msg)
        rows = np.unique(np.linspace(0, counts.n_cells - 1, num=min(cells, counts.n_cells)).astype(int))
        largest = 0.0
        for row in rows:
            again = embed_rows(counts.read(row, row + 1), job.readers, job.species[row : row + 1]).vectors[0]
            if np.isnan(again).any() != np.isnan(stored[row]).any():
                largest = float("inf")
            elif not np.isnan(again).any():
                largest = max(largest, float(np.abs(again - stored[row]).max()))
    return Verdict(str(path), key, len(rows), largest, TOLERANCE[precision])


def _read_result(path: Path, key: str) -> tuple[dict[str, Any], Any]:
    import h5py
    from anndata.io import read_elem

    if not path.is_file() or not h5py.is_hdf5(path):
        msg = f"{path}: not a .h5ad file. Give a file that `uce embed` has written."
        raise InputError(msg)
    with h5py.File(path, "r") as file:
        records = read_elem(file["uns/uce"]) if "uns/uce" in file else {}
        if key not in records or key not in file.get("obsm", {}):
            others = shorten(sorted(records)) or "none"
            msg = f"{path}: no record of obsm[{key!r}]. Results that uce wrote here: {others}."
            raise InputError(msg)
        return records[key], file["obsm"][key][:]
