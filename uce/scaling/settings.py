"""What a study of learning curves is made of, and the runs that it consists of."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from uce.config import read_config
from uce.corpus.choosing import SubsetRule, TrainingCells, cell_sequence
from uce.errors import UsageError
from uce.files import printable
from uce.model.encoder import ModelConfig
from uce.scaling.verdicts import MARGIN
from uce.training.settings import DataSettings, PretrainConfig, ValidationSettings

WHOLE = "all"  # scheme of the full corpus, which is the last point of every scheme
UNTRAINED = "untrained"
REFERENCES = "references"  # a row beside the runs
CHECKS = 5  # of a run: scored after every fifth of its steps


@dataclass(frozen=True)
class LearnerSettings:
    """What learns."""

    name: str  # in tables, and of its runs
    config: str = ""  # YAML of a run, beside the study's file; left out: principal components
    overrides: tuple[str, ...] = ()  # key=value, over the file


@dataclass(frozen=True)
class StudyConfig:
    """A study: subsets of a corpus, learners, seeds, and how each run is judged.

    Raises
    ------
    UsageError
        A value out of range, or two learners of one name.
    """

    corpus: str  # folder made by `uce corpus build`; scored are its cells of `validation.split`
    learners: tuple[LearnerSettings, ...]
    axis: Literal["cells", "datasets"] = "cells"  # what there is more of
    schemes: tuple[str, ...] = ("random",)  # random, reweighted, sketch, or spike:SHARE:DATASET
    sizes: int = 8  # the full corpus, half of it, a quarter, and so on
    seeds: int = 4  # of subset, weights and order together
    only: tuple[str, ...] = ()  # training datasets to learn from; all if empty
    margin: float = MARGIN  # gain per doubling below which a curve is called saturated
    validation: ValidationSettings = field(default_factory=ValidationSettings)  # the same cells for every run
    question: str = ""  # for the report, as are the next two; fixed before the first run
    rule: str = ""  # by which the words of the verdict are chosen
    claim: str = ""  # what may be said of the world if they come out so

    def __post_init__(self) -> None:
        names = [learner.name for learner in self.learners]
        if not names or len(set(names)) < len(names):
            msg = "learners: one or more are needed, each with a name of its own."
            raise UsageError(msg)
        if self.sizes < 1 or self.seeds < 1 or not self.margin > 0 or not self.schemes:
            msg = "sizes, seeds, margin and schemes: 1 or more, above 0, one at least."
            raise UsageError(msg)
        rules = [self.subset_rule(scheme, 0) for scheme in self.schemes]
        if self.axis == "datasets" and any(rule.scheme != "random" for rule in rules):
            msg = "axis datasets: whole datasets are taken at random. Leave schemes out."
            raise UsageError(msg)

    def subset_rule(self, scheme: str, seed: int) -> SubsetRule:
        """How a scheme takes cells.

        Raises
        ------
        UsageError
            It is not one that is known.
        """
        name, *rest = scheme.split(":", 2)
        if name != "spike":
            return SubsetRule(scheme, seed, self.only)  # type: ignore[arg-type]  # refused by the rule if unknown
        try:
            share = float(rest[0])
            dataset = rest[1]
        except (IndexError, ValueError):
            msg = f"scheme {printable(scheme)!r}: spike:SHARE:DATASET is needed, such as spike:0.1:human_skin."
            raise UsageError(msg) from None
        return SubsetRule("spike", seed, self.only, dataset, share)


@dataclass(frozen=True)
class Run:
    """One run of a study: a learner on a subset. Size 0 is the learner untrained."""

    learner: LearnerSettings
    scheme: str
    size: int
    seed: int

    @property
    def name(self) -> str:
        """Of its row."""
        scheme = self.scheme.replace(":", "_")
        return f"{self.learner.name}-{scheme}-{self.size}-s{self.seed}"


def sizes_of(study: StudyConfig, pool: TrainingCells) -> list[int]:
    """The sizes, rising: all there is, and what halving makes of it; in cells or datasets."""
    whole = pool.cells if study.axis == "cells" else len(pool.names)
    return sorted({max(1, round(whole / 2**k)) for k in range(study.sizes)})


def runs_of(study: StudyConfig, pool: TrainingCells) -> Iterator[Run]:
    """All runs, seed by seed. What a scheme cannot give (a spike that runs out of cells) is no run.

    The full corpus is the same in every scheme, so it is run once.
    """
    *parts, whole = sizes_of(study, pool)
    most = {scheme: _most(study, scheme, pool) for scheme in study.schemes}
    for seed in range(study.seeds):
        for learner in study.learners:
            if learner.config:
                yield Run(learner, UNTRAINED, 0, seed)
            for scheme in study.schemes:
                yield from (Run(learner, scheme, size, seed) for size in parts if size <= most[scheme])
            yield Run(learner, WHOLE, whole, seed)


def _most(study: StudyConfig, scheme: str, pool: TrainingCells) -> int:
    rule = study.subset_rule(scheme, 0)
    return len(cell_sequence(pool, rule)) if rule.scheme == "spike" else pool.cells


def read_learner(study: StudyConfig, learner: LearnerSettings, folder: Path) -> PretrainConfig:
    """The configuration of a learner's runs, but for corpus and seed; its path begins at `folder`.

    Of principal components it says which cells are scored, and nothing else.

    Raises
    ------
    UsageError
        It cannot be read, or its steps cannot be shared out among the checks.
    """
    if not learner.config:
        return PretrainConfig(data=DataSettings(study.corpus), model=ModelConfig(), validation=study.validation)
    config = read_config(PretrainConfig, folder / learner.config, overrides=learner.overrides)
    if config.steps % CHECKS:
        msg = (
            f"{learner.config}: steps = {config.steps}: a multiple of {CHECKS} is needed, each part ends with a score."
        )
        raise UsageError(msg)
    validation = replace(study.validation, every=config.steps // CHECKS)
    return replace(config, validation=validation, name="model")


def with_corpus(config: PretrainConfig, corpus: str | Path, seed: int) -> PretrainConfig:
    """The configuration of one run."""
    data: DataSettings = replace(config.data, corpus=str(corpus))
    return replace(config, data=data, seed=seed)
