"""One annotation from two inputs to columns and a record; refuses what can be refused before the work."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uce.annotation.beside import Beside, compare
from uce.annotation.cautions import warnings_of
from uce.annotation.describing import columns_of, facts_of, sentences
from uce.annotation.guessing import Method
from uce.annotation.labelling import Labelling, Unknown, label_cells
from uce.annotation.reference import FORM, LabelMap, make_reference, read_columns
from uce.annotation.sources import Input, Side, both_sides
from uce.annotation.writing import refuse_existing
from uce.cells.counts import open_source
from uce.engines import Settings
from uce.errors import InputError, UsageError
from uce.evaluation.label_map import read_label_map
from uce.model.checkpoint import Model
from uce.outputs import check_key
from uce.progress import say


@dataclass(frozen=True)
class Wishes:
    """What the user asked for, see `uce.annotate`."""

    label_key: str
    group_key: str | None = None
    method: Method = "knn"
    unknown: Unknown = "auto"
    label_map: LabelMap | None = None
    key: str = "X_uce"
    key_added: str = "uce"
    overwrite: bool = False
    pca: bool = True

    def __post_init__(self) -> None:
        check_key(self.key)
        check_key(self.key_added)
        if self.method not in ("knn", "logistic"):
            msg = f"--method {self.method}: not a method. Use knn or logistic."
            raise UsageError(msg)
        if self.unknown not in ("auto", "off") and not (isinstance(self.unknown, float | int) and 0 < self.unknown < 1):
            msg = f"--unknown {self.unknown}: must be auto, off, or a share between 0 and 1 such as 0.05."
            raise UsageError(msg)

    @property
    def named_map(self) -> str:
        """What records call the label map: its file without the folder, or nothing where there is none."""
        if self.label_map is None:
            return ""
        return Path(self.label_map).name if isinstance(self.label_map, str | Path) else "given"


@dataclass(frozen=True, eq=False)
class Run:
    """One annotation, computed.

    Attributes
    ----------
    columns
        For `obs` of the query.
    facts
        For `uns`.
    beside
        The same by principal components, and the markers; or, in words, why not.
    """

    query: Side
    reference: Side
    found: Labelling
    columns: dict[str, Any]
    facts: dict[str, Any]
    beside: Beside | str


def compute(
    query: Input,
    reference: Input,
    wishes: Wishes,
    *,
    model: str | Path | Model | None,
    settings: Settings,
    quiet: bool,
) -> Run:
    """Vectors of both, the labels, and what they are worth.

    Raises
    ------
    UsageError, InputError, ModelError, OutputExistsError
        Naming what does not fit, and the way out.
    """
    with closing((source := open_source(query.data, genome=query.options.genome)).stack):
        if not source.n_cells:
            msg = f"{query.name}: holds no cells, so there is nothing to label."
            raise InputError(msg)
        refuse_existing(query.name, source.cells.columns, wishes.key_added, overwrite=wishes.overwrite)
    if isinstance(wishes.label_map, str | Path):
        read_label_map(wishes.label_map, form=FORM)  # what is wrong with it is said before the work
    labels, groups = read_columns(reference, wishes.label_key, wishes.group_key)
    sides = both_sides(
        query, reference, model=model, settings=settings, key=wishes.key, overwrite=wishes.overwrite, quiet=quiet
    )
    known = make_reference(sides[1], labels, groups, wishes.label_map)
    found = label_cells(sides[0].vectors, known, method=wishes.method, unknown=wishes.unknown, seed=settings.seed)
    beside = compare(found, *sides, seed=settings.seed) if wishes.pca else "not asked for"
    warnings = warnings_of(found, sides[0], sides[1])
    given = {"label_key": wishes.label_key, "group_key": wishes.group_key or "", "label_map": wishes.named_map}
    facts = facts_of(found, sides[0], sides[1], warnings, **given)
    facts["pca"] = {"skipped": beside} if isinstance(beside, str) else beside.facts
    for sentence in sentences(found, facts):
        say(sentence, quiet=quiet)
    for warning in warnings:
        say(f"warning: {warning}", quiet=quiet)
    return Run(sides[0], sides[1], found, columns_of(found, wishes.key_added), facts, beside)
