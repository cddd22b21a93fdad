"""Does more data help? A study from its file to a verdict: subsets of a corpus, runs that share a folder, a report."""

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from uce.config import config_to_dict, read_config
from uce.corpus.choosing import training_cells
from uce.files import sha256_file
from uce.grid import JSON, Row, run_rows
from uce.scaling.settings import REFERENCES, Run, StudyConfig, read_learner, runs_of, with_corpus

if TYPE_CHECKING:
    from uce.training.settings import PretrainConfig


def run_study(
    study: str | Path,
    out: str | Path,
    *,
    overrides: Iterable[str] = (),
    report: bool = False,
    retry: bool = False,
    quiet: bool = False,
) -> Path:
    """Do all runs of a study that are not done yet, then write its report; returns the report.

    Start it several times at once to use several cores: the processes share the runs, and the last one to end has all
    of them in its report. A killed one goes on by the same call.

    Parameters
    ----------
    study
        YAML of a `StudyConfig`; configurations of learners lie beside it.
    out
        Folder of the study: `rows/` and `runs/` (see `uce.grid`), and the report as `rows.csv`, `report.md`,
        `curves.png` and `verdict.json`.
    report
        Do no run; make the report of what is there.
    retry
        Do runs again that failed.

    Raises
    ------
    UsageError
        The study or a configuration cannot be used, or `out` holds runs of another one.
    InputError, ModelError
        The corpus cannot be read.
    StorageError
        The folder cannot be written.
    KeyboardInterrupt
        It was interrupted; the same call goes on.
    """
    from uce.scaling.report import write_report

    study, out = Path(study), Path(out)
    config = read_config(StudyConfig, study, overrides=overrides)
    pool = training_cells(config.corpus, config.only)
    learners = {learner.name: read_learner(config, learner, study.parent) for learner in config.learners}
    runs = {run.name: run for run in runs_of(config, pool)}
    corpus = sha256_file(pool.index.folder / "corpus.json")
    rows = [_row(run, learners[run.learner.name], config, corpus) for run in runs.values()]
    rows.insert(0, Row(REFERENCES, {"corpus": corpus, "validation": config_to_dict(config.validation)}))
    if not report:
        run_rows(out, rows, partial(_work, runs=runs, study=config, learners=learners), retry=retry, quiet=quiet)
    return write_report(config, list(runs.values()), out)


def _row(run: Run, config: "PretrainConfig", study: StudyConfig, corpus: str) -> Row:
    """The place of a corpus is no part of what a run is: its hash says which one it is."""
    settings: dict[str, JSON] = {
        "learner": run.learner.name,
        "scheme": run.scheme,
        "axis": study.axis,
        "size": run.size,
        "seed": run.seed,
        "only": study.only,
        "corpus": corpus,
        "config": config_to_dict(with_corpus(config, "", run.seed)) if run.learner.config else None,
        "validation": config_to_dict(study.validation),
    }
    return Row(run.name, settings)


def _work(
    row: Row, place: Path, *, runs: Mapping[str, Run], study: StudyConfig, learners: "Mapping[str, PretrainConfig]"
) -> Mapping[str, JSON]:
    from uce.scaling.runs import score_references, train_and_score

    if row.name == REFERENCES:
        return score_references(with_corpus(next(iter(learners.values())), study.corpus, 0))
    run = runs[row.name]
    return train_and_score(run, study, learners[run.learner.name], place)
