"""Many data sets judged in one go, and one report over all of them: `uce benchmark`."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd

import uce
from uce.config import config_to_dict, read_config, write_config
from uce.errors import InputError, ModelError, UsageError
from uce.evaluation.baselines import BASELINES
from uce.evaluation.evaluate import evaluate
from uce.evaluation.options import at_least, known_names
from uce.evaluation.results import plain
from uce.evaluation.tasks import TASKS
from uce.files import atomic_path, make_folder, sha256_file, write_json
from uce.model.checkpoint import load_model
from uce.progress import say


@dataclass(frozen=True)
class SuiteEntry:
    """One data set of a suite; columns and options as for `uce.evaluate`.

    Attributes
    ----------
    name
        Of its folder in the output.
    file
        Relative to `Suite.data`.
    note
        For readers of the report, such as why donors cannot be held out.
    """

    name: str
    file: str
    label_key: str = "cell_type"
    batch_key: str | None = None
    group_key: str | None = None
    dataset_key: str | None = None
    assay_key: str | None = None
    species: str | None = None
    layer: str | None = None
    random_split: bool = False
    note: str = ""

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name or self.name.startswith("."):
            msg = f"datasets: name {self.name!r} cannot be that of a folder; use letters, digits, - and _."
            raise UsageError(msg)


@dataclass(frozen=True)
class Suite:
    """What `uce benchmark` reads from YAML.

    Attributes
    ----------
    name
        Title of the report.
    datasets
        At least one.
    data
        Folder that their files are relative to.
    model
        Name or folder of the model that is judged.
    baselines, tasks
        By name; all if left out.
    max_cells, seeds, seed
        As for `uce.evaluate`.
    """

    name: str
    datasets: tuple[SuiteEntry, ...]
    data: str = "."
    model: str = "uce-mini"
    baselines: tuple[str, ...] = tuple(BASELINES)
    tasks: tuple[str, ...] = tuple(TASKS)
    max_cells: int = 20_000
    seeds: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        names = [entry.name for entry in self.datasets]
        if not names or len(set(names)) < len(names):
            msg = "datasets: one or more are needed, each with a name of its own."
            raise UsageError(msg)
        known_names("baseline", self.baselines, BASELINES)
        known_names("task", self.tasks, TASKS)
        at_least("max_cells", self.max_cells, 50)
        at_least("seeds", self.seeds, 1)


@dataclass(frozen=True, eq=False)
class SuiteResult:
    """The outcome of `run_suite`.

    Attributes
    ----------
    suite
        What was asked.
    results
        Data set -> content of its `results.json`; those that could not be judged are missing.
    problems
        Data set -> why it could not be judged.
    """

    suite: Suite
    results: dict[str, dict[str, Any]]
    problems: dict[str, str]

    def table(self) -> pd.DataFrame:
        """Long table: dataset, seen, embedding, kind, task and the fields of a score, one line per number."""
        rows = [
            {"dataset": dataset, "seen": content["leakage"]["status"], **score}
            for dataset, content in self.results.items()
            for score in content["scores"]
        ]
        table = pd.DataFrame(rows).drop(columns=["by_subsample", "seconds"], errors="ignore")
        numbers = [name for name in ("value", "low", "high") if name in table]
        return table.astype(dict.fromkeys(numbers, float))


def run_suite(
    source: str | Path, output: str | Path, *, overrides: Iterable[str] = (), threads: int = 2, quiet: bool = False
) -> SuiteResult:
    """Judge every data set of a suite that is not judged yet, each into a folder of its own, and combine them.

    The same command goes on where an earlier one was stopped. A data set whose file, settings or model have changed
    is judged anew.

    Parameters
    ----------
    source
        YAML of a `Suite`; `overrides` such as `data=/somewhere` come on top.
    output
        Folder for `report.html`, `results.tsv`, `summary.md` and a folder per data set.

    Raises
    ------
    UsageError
        The suite is not readable, or names what is not there.
    ModelError, StorageError
        The model is not there, or the folder cannot be written.
    """
    suite = read_config(Suite, source, overrides=overrides)
    model = load_model(suite.model)
    base = Path(source).parent / suite.data
    missing = [entry.file for entry in suite.datasets if not (base / entry.file).exists()]
    if missing:
        msg = f"{base / missing[0]}: no such file ({len(missing)} of {len(suite.datasets)} missing). Give data=FOLDER."
        raise UsageError(msg)
    folder = make_folder(output)
    results, problems = {}, {}
    for number, entry in enumerate(suite.datasets, start=1):
        say(f"{entry.name} ({number} of {len(suite.datasets)})", quiet=quiet)
        path = base / entry.file
        plan = _plan(suite, entry, path, model.sha256)
        try:
            results[entry.name] = _judged(suite, entry, path, folder / entry.name, plan, threads=threads, quiet=quiet)
        except (InputError, ModelError, UsageError) as error:  # this data set cannot be judged; the others can
            problems[entry.name] = str(error)
            say(f"not judged: {error}", quiet=quiet)
    result = SuiteResult(suite, results, problems)
    _write(result, folder)
    return result


def _plan(suite: Suite, entry: SuiteEntry, path: Path, model_sha256: str) -> str:
    shared = {
        key: value for key, value in config_to_dict(suite).items() if key not in ("datasets", "data", "name", "model")
    }
    stamp = sha256_file(path) if path.is_file() else str(path)
    content = [uce.__version__, shared, config_to_dict(entry), stamp, model_sha256]
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _judged(
    suite: Suite, entry: SuiteEntry, path: Path, folder: Path, plan: str, *, threads: int, quiet: bool
) -> dict[str, Any]:
    """The content of `results.json`: that of an earlier run of the same plan, or of one that is made now."""
    stamp = folder / "plan.txt"
    if not (stamp.exists() and stamp.read_text(encoding="utf-8").strip() == plan):
        evaluate(
            path,
            label_key=entry.label_key,
            batch_key=entry.batch_key,
            group_key=entry.group_key,
            dataset_key=entry.dataset_key,
            assay_key=entry.assay_key,
            species=entry.species,
            layer=entry.layer,
            random_split=entry.random_split,
            embeddings=(),
            model=suite.model,
            baselines=suite.baselines,
            tasks=suite.tasks,
            max_cells=suite.max_cells,
            seeds=suite.seeds,
            seed=suite.seed,
            threads=threads,
            output=folder,
            overwrite=True,
            quiet=quiet,
        )
        with atomic_path(stamp) as temporary:
            temporary.write_text(plan + "\n", encoding="utf-8")
    content: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return content


def _write(result: SuiteResult, folder: Path) -> None:
    from uce.evaluation.report.suite import write_suite_report, write_summary

    write_config(result.suite, folder / "suite.yaml")
    with atomic_path(folder / "results.tsv") as temporary:
        result.table().to_csv(temporary, sep="\t", index=False)
    write_json(folder / "problems.json", plain(result.problems))
    write_summary(result, folder / "summary.md")
    write_suite_report(result, folder / "report.html")
