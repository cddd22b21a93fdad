"""Judge embeddings of labelled cells beside baselines and controls: `uce.evaluate`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from uce.cells.counts import Policy
from uce.corpus.training_manifest import TrainingManifest
from uce.embedding import make_settings
from uce.errors import InputError
from uce.evaluation.baselines import BASELINES
from uce.evaluation.candidates import row_name
from uce.evaluation.choosing import DEFAULT_MODEL, read_judged
from uce.evaluation.context import Settings
from uce.evaluation.counts import CountsOptions
from uce.evaluation.embeddings import Embedding
from uce.evaluation.options import at_least, known_names
from uce.evaluation.reading import Columns, Judged, read_cells
from uce.evaluation.results import EvalResult
from uce.evaluation.runner import judge
from uce.evaluation.saving import report_folder
from uce.evaluation.tasks import TASKS
from uce.genes.resolver import MIN_SHARE
from uce.model.checkpoint import Model, load_model

if TYPE_CHECKING:
    from anndata import AnnData

DEFAULT_BASELINES = tuple(BASELINES)


def evaluate(
    data: "str | Path | AnnData",
    *,
    label_key: str,
    batch_key: str | None = None,
    group_key: str | None = None,
    dataset_key: str | None = None,
    assay_key: str | None = None,
    embeddings: Sequence[str] | None = None,
    model: str | Path | Model | None = None,
    baselines: Sequence[str] = DEFAULT_BASELINES,
    tasks: Sequence[str] | None = None,
    species: str | None = None,
    gene_column: str | None = None,
    min_coverage: float = MIN_SHARE,
    layer: str | None = None,
    use_raw: bool = False,
    counts_policy: Policy = "invert",
    genome: str | None = None,
    max_cells: int = 20_000,
    seeds: int = 3,
    seed: int = 0,
    manifest: str | Path | None = None,
    random_split: bool = False,
    precision: str = "auto",
    device: str = "auto",
    batch_size: int | Literal["auto"] = "auto",
    threads: int = 2,
    output: str | Path | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> EvalResult:
    """Judge embeddings of labelled cells beside baselines and controls, on the same cells. `data` is not changed.

    Parameters
    ----------
    data
        `.h5ad`, AnnData zarr, or an AnnData.
    label_key, batch_key
        Columns of `obs`: what a cell is, and its technical batch.
    group_key, dataset_key, assay_key
        Columns of independent units (donor, study, technology). Labels are carried to whole units that were held out,
        of the largest kind that is given, and intervals come from drawing units; a batch stands in for a donor.
    embeddings
        Keys of `obsm` to judge. Left out: `X_uce` where it is there, else none.
    model
        Also embed the cells with this model and judge it. Left out: `uce-mini` where no embedding is judged; the
        baselines that need gene vectors take the model that made the first embedding, where it is known and installed.
    baselines
        Names in `uce.evaluation.baselines.BASELINES`.
    tasks
        Names in `uce.evaluation.tasks.TASKS`; all if left out.
    species, gene_column, min_coverage, layer, use_raw, counts_policy, genome
        Where the counts are and how genes are found, as for `uce.embed`.
    max_cells, seeds, seed
        More cells are drawn from `seeds` times, stratified by batch and label; `seeds` is also the number of copies of
        baselines that start from random numbers.
    manifest
        Training manifest to look for these cells in, beside the one that the model brings.
    random_split
        Where there are no independent units, allow a split by cells; its scores are marked.
    precision, device, batch_size, threads
        How to compute.
    output
        Folder for `report.html`, `results.json`, `results.tsv`, `predictions.tsv.gz`. A run that was killed goes on
        where it was when it is given the same folder.
    overwrite
        Replace a report that is there.
    quiet
        No progress on stderr.

    Raises
    ------
    UsageError
        A column, key, task or baseline that is not there; the nearest one is offered.
    InputError
        The file cannot be read, or no cell has a label.
    OutputExistsError
        The folder has a report and `overwrite` is false.

    Examples
    --------
    >>> import uce
    >>> result = uce.evaluate("lung.h5ad", label_key="cell_type", batch_key="donor", output="report")  # doctest: +SKIP
    >>> result.table().query("headline")                                                               # doctest: +SKIP
    """
    known_names("baseline", baselines, BASELINES)
    chosen_tasks = {name: TASKS[name] for name in known_names("task", tasks or list(TASKS), TASKS)}
    settings = Settings(
        max_cells=at_least("max_cells", max_cells, 50),
        seeds=at_least("seeds", seeds, 1),
        seed=seed,
        manifest=None if manifest is None else Path(manifest),
        random_split=random_split,
        threads=at_least("threads", threads, 1),
    )
    if settings.manifest is not None:
        TrainingManifest.read(settings.manifest)  # a wrong path is said before the work
    with report_folder(output, data, overwrite=overwrite) as folder:
        judged = read_judged(
            data,
            Columns(label_key, batch_key, group_key, dataset_key, assay_key),
            embeddings=embeddings,
            model=model,
            computing=make_settings(seed, 1, batch_size, precision, device),
            options=CountsOptions(species, gene_column, min_coverage, layer, use_raw, counts_policy, genome),
            settings=settings,
        )
        return judge(judged, list(baselines), chosen_tasks, settings, folder=folder, quiet=quiet)


def evaluate_cross(
    first: "str | Path | AnnData",
    second: "str | Path | AnnData",
    *,
    label_key: str,
    batch_key: str | None = None,
    group_key: str | None = None,
    embeddings: Sequence[str] = (),
    model: str | Path | Model = DEFAULT_MODEL,
    label_map: str | Path | None = None,
    orthologs: str | Path | None = None,
    species: tuple[str | None, str | None] = (None, None),
    max_cells: int = 20_000,
    seed: int = 0,
    precision: str = "auto",
    device: str = "auto",
    batch_size: int | Literal["auto"] = "auto",
    output: str | Path | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> EvalResult:
    """Carry labels between two data sets, of one species or of two, both ways, beside baselines and controls.

    Parameters
    ----------
    first, second
        `.h5ad`, AnnData zarr, or AnnData, each with raw counts and the columns that are named.
    label_key, batch_key, group_key
        Columns of `obs` of both; see `evaluate`.
    embeddings
        Keys of `obsm` that both have, in one space.
    model
        Embeds both.
    label_map
        CSV that says which labels are the same, see `uce.evaluation.label_map.read_label_map`; without it those of
        equal names.
    orthologs
        CSV of pairs of genes, see `uce.genes.orthologs.read_orthologs`; without it those of the bundled tables.
    species
        Of the first and of the second; found by their gene names if left out.
    max_cells, seed, precision, device, batch_size, output, overwrite, quiet
        As for `evaluate`.

    Raises
    ------
    UsageError, InputError, OutputExistsError
        As of `evaluate`; or no label is shared, or a key holds no vectors.
    """
    from uce.evaluation.cross import judge_cross

    with report_folder(output, first, second, overwrite=overwrite) as folder:
        loaded = model if isinstance(model, Model) else load_model(model)
        sides = [
            read_cells(
                data,
                Columns(label_key, batch_key, group_key),
                keys=embeddings,
                model=loaded,
                computing=make_settings(seed, 1, batch_size, precision, device),
                options=CountsOptions(species=name),
                max_cells=at_least("max_cells", max_cells, 50),
                seed=seed,
            )
            for data, name in zip((first, second), species, strict=True)
        ]
        return judge_cross(
            sides[0].cells,
            sides[1].cells,
            _in_both(embeddings, sides[0], sides[1]),
            Settings(seed=seed),
            label_map=label_map,
            orthologs=orthologs,
            folder=folder,
            quiet=quiet,
        )


def _in_both(keys: Sequence[str], first: Judged, second: Judged) -> list[tuple[Embedding, Embedding]]:
    for side in (first, second):
        for why in side.broken.values():
            msg = f"{side.cells.name}: {why}. Leave it out of --embeddings."
            raise InputError(msg)
    return [
        (Embedding(name, first.given[key], "given", "in the files"), Embedding(name, second.given[key], "given"))
        for key in dict.fromkeys(keys)
        for name in [row_name(key, first.cells)]
    ]
