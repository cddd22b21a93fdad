"""Vectors of the query and of the reference: as they are where one model made both, else embedded by one model."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uce.cells.counts import open_counts, open_source
from uce.devices import check_precision
from uce.embedding import DEFAULT_MODEL, embed_job
from uce.engines import Settings
from uce.errors import InputError, ModelError, OutputExistsError, UsageError
from uce.evaluation.counts import CountsOptions
from uce.evaluation.embeddings import Floats, as_vectors
from uce.evaluation.results import NotPossible
from uce.files import shorten
from uce.genes.catalogue import canonical_species
from uce.jobs import prepare_job
from uce.model.checkpoint import Model, load_model
from uce.model.precision import choose_precision
from uce.progress import say

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class Input:
    """Cells and how they are read.

    Attributes
    ----------
    data
        A path, or an AnnData, which is not changed.
    role
        `query` or `reference`, for messages.
    options
        How counts and genes are found, if they are needed.
    """

    data: "str | Path | AnnData"
    role: str
    options: CountsOptions

    @property
    def name(self) -> str:
        """What messages and tables call it: the file's name, without its folder."""
        return Path(self.data).name if isinstance(self.data, str | Path) else f"the {self.role}"


@dataclass(frozen=True)
class Maker:
    """What two sets of vectors must have in common to be compared."""

    model_sha256: str
    gene_vectors: str
    precision: str

    @classmethod
    def of(cls, record: dict[str, Any]) -> "Maker":
        """As a provenance record tells it."""
        return cls(*(str(record.get(name, "")) for name in ("model_sha256", "gene_vectors", "precision")))

    def __str__(self) -> str:
        return f"model {self.model_sha256[:12]}, {self.gene_vectors}, {self.precision}"


@dataclass(frozen=True, eq=False)
class Side:
    """The vectors of one input.

    Attributes
    ----------
    vectors
        (cells, dim) float32 unit rows, NaN where a cell has no resolved count.
    record
        What made them, see `uce.jobs.make_record`.
    kind
        Format of the source, such as "h5ad".
    new
        Whether they were made just now.
    """

    given: Input
    vectors: Floats
    record: dict[str, Any]
    kind: str
    new: bool


def both_sides(
    query: Input,
    reference: Input,
    *,
    model: str | Path | Model | None,
    settings: Settings,
    key: str,
    overwrite: bool,
    quiet: bool,
) -> tuple[Side, Side]:
    """Vectors of both that can be compared.

    `obsm[key]` is used where its record names the same model, kind of gene vectors and precision as the other side's
    (and as `model`, if one is asked for); whatever does not fit is embedded from its counts.

    Raises
    ------
    ModelError
        The stored vectors do not fit each other and cannot be made anew, or the model is not installed here.
    InputError
        A side without vectors cannot be embedded.
    OutputExistsError
        Vectors of an object in memory would be replaced and `overwrite` is false.
    UsageError
        Vectors that are used were made from the genes of another species than the one that is asked for.
    """
    stored = {given.role: _stored(given, key) for given in (reference, query)}
    loaded = _loaded(model)
    records = [side.record for side in stored.values() if side]
    fitting = [record for record in records if loaded is None or record.get("model_sha256") == loaded.sha256]
    if fitting:
        wanted, named = Maker.of(fitting[0]), str(fitting[0].get("model"))
    else:
        loaded = loaded or load_model(DEFAULT_MODEL)
        precision = choose_precision(settings.precision, loaded.encoder, settings.device)
        wanted, named = Maker(loaded.sha256, loaded.gene_encoder, precision), loaded.name
    kept = {role: side for role, side in stored.items() if side is not None and Maker.of(side.record) == wanted}
    for side in kept.values():
        _refuse_other_species(side, key)
    if len(kept) < len(stored):
        loaded = loaded or _named(named, wanted)
    sides = []
    for given in (query, reference):
        if given.role in kept:
            say(f"{given.name}: obsm[{key!r}] is used as it is ({wanted})", quiet=quiet)
            sides.append(kept[given.role])
        else:
            assert loaded is not None
            if given is query and not overwrite:
                _refuse_replacing(given, key)
            sides.append(_embedded(given, stored[given.role], wanted, loaded, settings, quiet=quiet))
    return sides[0], sides[1]


def one_side(given: Input, model: Model, *, settings: Settings, key: str, overwrite: bool, quiet: bool) -> Side:
    """The vectors of one input by a model: those that are there where it made them, else made anew."""
    stored = _stored(given, key)
    if stored and Maker.of(stored.record).model_sha256 == model.sha256:
        _refuse_other_species(stored, key)
        return stored
    if not overwrite:
        _refuse_replacing(given, key)
    precision = choose_precision(settings.precision, model.encoder, settings.device)
    return _embedded(given, stored, Maker(model.sha256, model.gene_encoder, precision), model, settings, quiet=quiet)


def _refuse_other_species(side: Side, key: str) -> None:
    """Vectors that are there were made from the genes of a species; another one cannot be asked for beside them."""
    asked, made = side.given.options.species, list(side.record.get("species", {}))
    if asked is not None and made and canonical_species(asked) not in made:
        option = "--species" if side.given.role == "query" else "--reference-species"
        msg = (
            f"{side.given.name}: {option} {asked}, but obsm[{key!r}] was made from the genes of {shorten(made)}. Leave "
            f"{option} out, or make vectors anew with `uce embed --species {asked} --overwrite`."
        )
        raise UsageError(msg)


def _refuse_replacing(given: Input, key: str) -> None:
    """A file stays as it is, and its copy gets new vectors; those of an object in memory would be lost."""
    if not isinstance(given.data, str | Path) and key in given.data.obsm:
        msg = (
            f"{given.name}: obsm[{key!r}] was not made by this model and would be replaced. "
            f"Rename it, or pass overwrite=True."
        )
        raise OutputExistsError(msg)


def _loaded(model: str | Path | Model | None) -> Model | None:
    return model if model is None or isinstance(model, Model) else load_model(model)


def _named(name: str, wanted: Maker) -> Model:
    """The model that a record names, if it is here and is the same."""
    try:
        model = load_model(name)
    except ModelError as error:
        msg = f"{error} Vectors that are there were made by it; give its folder with --model."
        raise ModelError(msg) from error
    if model.sha256 != wanted.model_sha256:
        msg = (
            f"vectors that are there were made by a model {name} of hash {wanted.model_sha256[:12]}, the one installed "
            f"here is {model.sha256[:12]}. Give the right one, or any to embed both anew, with --model."
        )
        raise ModelError(msg)
    return model


def _stored(given: Input, key: str) -> Side | None:
    """The vectors that are there, if this package made them."""
    source = open_source(given.data, genome=given.options.genome)
    with source.stack:
        record = source.records().get(key)
        if key not in source.obsm or not isinstance(record, dict):
            return None
        try:
            vectors = as_vectors(source.obsm[key](), source.n_cells, f"obsm[{key!r}]")
        except NotPossible as error:
            raise InputError(f"{given.name}: {error}.") from error
        return Side(given, vectors, record, source.kind, new=False)


def _embedded(
    given: Input, stored: Side | None, wanted: Maker, model: Model, settings: Settings, *, quiet: bool
) -> Side:
    options = given.options
    say(f"{given.name}: embedded by {model.name}", quiet=quiet)
    try:
        with open_counts(
            given.data,
            layer=options.layer,
            use_raw=options.use_raw,
            policy=options.counts_policy,
            genome=options.genome,
        ) as counts:
            job = prepare_job(
                counts,
                model,
                replace(settings, precision=check_precision(wanted.precision)),
                counts_policy=options.counts_policy,
                species=options.species,
                species_key=None,
                gene_column=options.gene_column,
                min_coverage=options.min_coverage,
            )
            vectors, record = embed_job(job, quiet=quiet)
            return Side(given, np.ascontiguousarray(vectors), record, counts.kind, new=True)
    except InputError as error:
        if stored is None:
            raise
        msg = (
            f"{given.name}: its vectors ({Maker.of(stored.record)}) cannot be compared with the other side's "
            f"({wanted}), and it cannot be embedded anew: {error}"
        )
        raise ModelError(msg) from error
