"""Labels for the cells of an AnnData (`annotate`) or of a file (`annotate_file`), taken from a labelled reference."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from uce.annotation import writing
from uce.annotation.classifying import classify, write_classified
from uce.annotation.guessing import Method
from uce.annotation.labelling import Unknown
from uce.annotation.reference import LabelMap
from uce.annotation.results import Annotated, outputs_beside, write_results
from uce.annotation.running import Wishes, compute
from uce.annotation.sources import Input
from uce.cells.counts import Policy
from uce.embedding import add_to_anndata, make_settings
from uce.errors import UsageError
from uce.evaluation.counts import CountsOptions
from uce.genes.resolver import MIN_SHARE
from uce.model.checkpoint import Model

if TYPE_CHECKING:
    from anndata import AnnData


def annotate(
    adata: "AnnData",
    *,
    reference: "str | Path | AnnData | None" = None,
    label_key: str | None = None,
    group_key: str | None = None,
    method: Method = "knn",
    unknown: Unknown = "auto",
    label_map: LabelMap | None = None,
    model: str | Path | Model | None = None,
    key: str = "X_uce",
    species: str | None = None,
    reference_species: str | None = None,
    gene_column: str | None = None,
    min_coverage: float = MIN_SHARE,
    layer: str | None = None,
    use_raw: bool = False,
    counts_policy: Policy = "invert",
    seed: int = 0,
    batch_size: int | Literal["auto"] = "auto",
    precision: str = "auto",
    device: str = "auto",
    pca: bool = True,
    key_added: str = "uce",
    overwrite: bool = False,
    quiet: bool = False,
) -> None:
    """Label the cells of `adata` by those of a reference, with a confidence or as unknown, in columns of `adata.obs`.

    `uce_label` (the best label, or "unknown"), `uce_best_label`, `uce_confidence` (or `uce_vote_share` where no donors
    could be held out), `uce_label_2`, `uce_margin`, `uce_unknown`, `uce_unknown_score`, `uce_nn_agreement`,
    `uce_nn_distance`, `uce_nn_distance_pct`; what they rest on, with a line per label, is in `uns["uce_annotate"]`.

    Parameters
    ----------
    adata
        Cells with `obsm[key]` and its record, or with raw counts, which are then embedded into `obsm[key]`.
    reference
        Labelled cells, likewise: a path or an AnnData, which is not changed. None: labels are those of the classifier
        that `model` brings along (see :func:`uce.adapt`), with a share of the vote that is no probability.
    label_key
        Column of the reference's `obs` with the labels. Cells without one ("", "unknown", missing) are left out.
    group_key
        Column of the reference's `obs` with donors, or whatever is independent. Confidence and `unknown` are chosen on
        donors that are held out in turn; without it there is a share of the vote instead, and no `unknown`.
    method
        `knn`: 15 nearest reference cells by cosine; `logistic`: logistic regression on the vectors.
    unknown
        Share of rightly labelled cells of a held-out donor that may be called unknown (0.05 for `auto`), or `off`.
    label_map
        Mapping, or a table with the columns `from,to`, that renames labels of the reference.
    model
        What embeds; by default the model that made the vectors that are there, else the default one. Vectors that it
        did not make are made anew.
    key
        Name of the vectors in `obsm` of both.
    species, reference_species
        Of the two; may differ, and be left out where the gene names explain one species clearly.
    gene_column, min_coverage, layer, use_raw, counts_policy
        How counts and genes of the query are found, as for :func:`uce.embed`.
    seed, batch_size, precision, device
        How to embed.
    pca
        Label the same cells by principal components too, where both have counts, and record how that compares.
    key_added
        Beginning of the names of the columns.
    overwrite
        Replace columns of an earlier run, and vectors in `obsm[key]` that do not fit the reference's.
    quiet
        No progress, notes and warnings on stderr.

    Raises
    ------
    UsageError, InputError, ModelError, OutputExistsError
        Naming what does not fit, and the way out.

    Examples
    --------
    >>> import uce
    >>> uce.annotate(adata, reference="atlas.h5ad", label_key="cell_type", group_key="donor")  # doctest: +SKIP
    >>> adata.obs["uce_label"].value_counts()                                                  # doctest: +SKIP
    """
    options = CountsOptions(species, gene_column, min_coverage, layer, use_raw, counts_policy)
    settings = make_settings(seed, 1, batch_size, precision, device)
    wishes = Wishes(label_key or "", group_key, method, unknown, label_map, key, key_added, overwrite, pca=pca)
    if reference is None:
        found = classify(Input(adata, "query", options), wishes, model=model, settings=settings, quiet=quiet)
        if found.query.new:
            add_to_anndata(adata, found.query.vectors, key=key, record=found.query.record)
        writing.add_to_anndata(adata, found.columns, key_added, found.facts)
        return
    _need(label_key)
    run = compute(
        Input(adata, "query", options),
        Input(reference, "reference", CountsOptions(reference_species, min_coverage=min_coverage)),
        wishes,
        model=model,
        settings=settings,
        quiet=quiet,
    )
    if run.query.new:
        add_to_anndata(adata, run.query.vectors, key=key, record=run.query.record)
    writing.add_to_anndata(adata, run.columns, key_added, run.facts)


def annotate_file(
    query: str | Path,
    output: str | Path | None = None,
    *,
    reference: str | Path | None = None,
    label_key: str | None = None,
    group_key: str | None = None,
    method: Method = "knn",
    unknown: Unknown = "auto",
    label_map: LabelMap | None = None,
    model: str | Path | Model | None = None,
    key: str = "X_uce",
    species: str | None = None,
    reference_species: str | None = None,
    gene_column: str | None = None,
    min_coverage: float = MIN_SHARE,
    layer: str | None = None,
    use_raw: bool = False,
    counts_policy: Policy = "invert",
    genome: str | None = None,
    seed: int = 0,
    batch_size: int | Literal["auto"] = "auto",
    precision: str = "auto",
    device: str = "auto",
    pca: bool = True,
    pictures: bool = True,
    key_added: str = "uce",
    overwrite: bool = False,
    quiet: bool = False,
) -> Annotated:
    """Label the cells of a file; the input stays as it is, only vectors are held in memory.

    Parameters beyond those of :func:`annotate`:

    Parameters
    ----------
    query
        Any file that :func:`uce.embed_file` takes.
    output
        The result `.h5ad`, `QUERY.annotated.h5ad` in the current folder if left out: all that the input holds, the
        columns, and `obsm[key]` if it was made now. Beside it: `.summary.tsv`, `.umap.png` and a report, `.html`.
    genome
        Which genome of a 10x file that holds several.
    pictures
        Also draw the UMAP and write the report.
    overwrite
        Replace files, and columns of an earlier run.

    Returns
    -------
    Annotated
        With the paths and the record.

    Raises
    ------
    UsageError, InputError, ModelError, OutputExistsError, StorageError
        Each before any long work where it can be known.
    """
    options = CountsOptions(species, gene_column, min_coverage, layer, use_raw, counts_policy, genome)
    settings = make_settings(seed, 1, batch_size, precision, device)
    wishes = Wishes(label_key or "", group_key, method, unknown, label_map, key, key_added, overwrite, pca=pca)
    pictures = pictures and reference is not None
    paths = outputs_beside(Path(query), output, Path(reference or query), pictures=pictures, overwrite=overwrite)
    if reference is None:
        found = classify(Input(query, "query", options), wishes, model=model, settings=settings, quiet=quiet)
        return write_classified(found, paths, wishes)
    _need(label_key)
    run = compute(
        Input(query, "query", options),
        Input(reference, "reference", CountsOptions(reference_species, min_coverage=min_coverage)),
        wishes,
        model=model,
        settings=settings,
        quiet=quiet,
    )
    return write_results(run, paths, wishes)


def _need(label_key: str | None) -> None:
    if not label_key:
        msg = "--reference without --label-key: name the obs column with its labels."
        raise UsageError(msg)
