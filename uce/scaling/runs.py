"""One run of a study: make the subset, learn, and score the same validation cells as every other run."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from uce.corpus.subset import subset_corpus
from uce.errors import InputError, ModelError
from uce.grid import JSON
from uce.scaling.settings import UNTRAINED, WHOLE, Run, StudyConfig, with_corpus
from uce.training.corpus import Corpus, open_corpus
from uce.training.probe import Probe, open_probes
from uce.training.settings import PretrainConfig

Scores: TypeAlias = dict[str, float]  # validation dataset -> macro-F1
_CHANCE_WIDTH = 16


def train_and_score(run: Run, study: StudyConfig, config: PretrainConfig, place: Path) -> Mapping[str, JSON]:
    """Values of a row: `f1` of each validation dataset, and what was shown.

    A run that was killed goes on from its snapshot; the subset is made once.
    """
    corpus = _subset(run, study, place)
    config = with_corpus(config, corpus, run.seed)
    train = open_corpus(config.data)
    values: dict[str, JSON] = {"cells": int(train.sizes.sum()), "datasets": len(train.datasets), "shown": 0}
    if run.scheme == UNTRAINED:
        f1 = score_untrained(config, place / "run")
    elif not run.learner.config:
        f1 = score_components(config, train)
    else:
        f1, values["last_fifth"] = score_trained(config, place / "run")
        values["shown"] = config.steps * config.batch_size
    values["f1"] = _checked(f1)
    _clear(place)
    return values


def _subset(run: Run, study: StudyConfig, place: Path) -> Path:
    """The corpus of a run, made once; the full one as it is."""
    if run.scheme == UNTRAINED or (run.scheme == WHOLE and not study.only):
        return Path(study.corpus)
    folder = place / "corpus"
    if not folder.exists():  # a subset has its name only when it is whole
        rule = study.subset_rule("random" if run.scheme == WHOLE else run.scheme, run.seed)
        size = {"cells": run.size} if study.axis == "cells" else {"datasets": run.size}
        subset_corpus(study.corpus, folder, rule=rule, **size)
    return folder


def score_trained(config: PretrainConfig, run: Path) -> tuple[Scores, float]:
    """Train, or go on; the scores at the end, and by how much their mean rose in the last fifth of the steps."""
    from uce.training.loop import pretrain
    from uce.training.records import read_metrics

    if not (run / config.name).is_dir():
        pretrain(config, out=run)
    probed = [line for line in read_metrics(run) if "probe" in line]
    if len(probed) < 2:
        msg = f"{run}: no scores in its log. Is there a validation dataset with labels?"
        raise InputError(msg)
    return probed[-1]["probe"], float(probed[-1]["probe_f1"] or 0) - float(probed[-2]["probe_f1"] or 0)


def score_untrained(config: PretrainConfig, run: Path) -> Scores:
    """Of the encoder that such a run begins with."""
    import torch
    from accelerate import Accelerator

    from uce.training.probe import probe
    from uce.training.start import open_start
    from uce.training.trainer import Trainer

    accelerator, corpus = Accelerator(mixed_precision=config.precision), open_corpus(config.data)
    run.mkdir(exist_ok=True)
    trainer = Trainer(config, corpus, accelerator, run, None, start=open_start(config, corpus, None))
    assert trainer.validation is not None
    trainer.wrapped.eval()
    with torch.no_grad(), accelerator.autocast():
        measured = probe(
            trainer.validation.probes, trainer.validation.config, trainer.wrapped, accelerator, trainer.tables
        )
    scores: Scores = measured["probe"]
    return scores


def score_components(config: PretrainConfig, train: Corpus) -> Scores:
    """Of the principal components of the subset: a model that learns in a minute."""
    from uce.evaluation.baselines.corpus_pca import project
    from uce.evaluation.corpus_components import fit, ranked_groups, read_logs
    from uce.evaluation.results import NotPossible

    probes = _probes(config, train)
    try:
        fitted = fit([read_logs(dataset, train) for dataset in train.datasets], train.sha256)
        return _scores(probes, [project(asked.counts, ranked_groups(asked.dataset, train), fitted) for asked in probes])
    except NotPossible as why:
        msg = f"no principal components of this corpus: {why}"
        raise ModelError(msg) from why


def score_references(config: PretrainConfig) -> Mapping[str, JSON]:
    """Scores that no size of the corpus changes: chance, mean gene vectors, and components of the judged cells.

    The last see the very cells they are judged on, which no model of a corpus does.
    """
    from uce.evaluation.baselines.pca import principal_components
    from uce.evaluation.baselines.variable_genes import variable_genes
    from uce.evaluation.cells import log_cp10k

    probes = _probes(config, open_corpus(config.data))
    random = np.random.Generator(np.random.PCG64(0))
    noise = [random.standard_normal((len(asked.labels), _CHANCE_WIDTH)).astype(np.float32) for asked in probes]
    own = []
    for asked in probes:
        logs = log_cp10k(asked.counts)
        values = np.asarray(logs[:, variable_genes(logs)].toarray(), dtype=np.float32)
        own.append(principal_components(values, np.ones(len(values), dtype=bool)))
    return {
        "chance": _checked(_scores(probes, noise)),
        "mean gene vectors": {asked.dataset.name: asked.baseline[0] for asked in probes},
        "own PCA": _checked(_scores(probes, own)),
    }


def _probes(config: PretrainConfig, beside: Corpus) -> tuple[Probe, ...]:
    """The cells to score, those that a run of this configuration scores.

    Raises
    ------
    InputError
        There are none.
    """
    probes = open_probes(config, open_corpus(config.data, split=config.validation.split, beside=beside))
    if not probes:
        msg = f"{config.data.corpus}: no dataset with split {config.validation.split} has labels (cell_type) to score."
        raise InputError(msg)
    return probes


def _scores(probes: Sequence[Probe], vectors: Sequence[NDArray[np.float32]]) -> Scores:
    return {asked.dataset.name: asked.score(own)[0] for asked, own in zip(probes, vectors, strict=True)}


def _checked(scores: Mapping[str, Any]) -> Scores:
    """Scores that are numbers.

    Raises
    ------
    ModelError
        One is not.
    """
    bad = [name for name, score in scores.items() if score is None or not np.isfinite(score)]
    if bad:
        msg = f"{bad[0]}: no score, as vectors of its cells are not finite."
        raise ModelError(msg)
    return {name: float(score) for name, score in scores.items()}


def _clear(place: Path) -> None:
    """Remove what a finished run needs no more: its subset and snapshots; log and configuration stay."""
    shutil.rmtree(place / "corpus", ignore_errors=True)
    for name in ("checkpoints", "model"):
        shutil.rmtree(place / "run" / name, ignore_errors=True)
