"""Two data sets, or two species, against each other: labels carried both ways, and whether mixing cost biology."""

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uce.evaluation.candidates import Candidate
from uce.evaluation.cells import Cells
from uce.evaluation.context import Settings
from uce.evaluation.crossing import Crossing, Part
from uce.evaluation.directions import CARRYING, judge_carrying, judge_retrieval, judge_unseen
from uce.evaluation.embeddings import Embedding
from uce.evaluation.label_map import read_label_map
from uce.evaluation.overcorrection import STRUCTURE, judge_absorbed, judge_mixing, judge_structure, judge_within
from uce.evaluation.pair_records import pair_facts, pair_hashes, pair_leakage
from uce.evaluation.pairing import UNCORRECTED, Pair, built_in, gather_spaces, pair_up
from uce.evaluation.records import describe, environment
from uce.evaluation.results import EvalResult, Family, Findings, NotPossible, Row, plain, unavailable
from uce.evaluation.uncertainty import compare
from uce.genes.orthologs import read_orthologs
from uce.progress import Progress, say


def _parts() -> Iterator[tuple[tuple[str, ...], Part]]:
    for direction in ("forward", "backward"):
        yield tuple(f"cross_{name}_{direction}" for name in CARRYING), _bind(judge_carrying, direction=direction)
        yield (f"cross_retrieval_{direction}",), _bind(judge_retrieval, direction=direction)
        yield (f"cross_unseen_auroc_{direction}",), _bind(judge_unseen, direction=direction)
    yield ("cross_mixing", "cross_mixing_ceiling"), judge_mixing
    yield ("cross_absorbed",), judge_absorbed
    yield ("cross_within_drop",), judge_within
    for number, metric in enumerate(STRUCTURE):
        yield (metric,), _bind(judge_structure, number=number)


def _bind(part: Callable[..., Findings], **values: Any) -> Part:
    return lambda crossing, embedding: part(crossing, embedding, **values)


_PARTS = tuple(_parts())
METRICS: tuple[tuple[str, Family], ...] = tuple((metric, "cross") for metrics, _ in _PARTS for metric in metrics)


def judge_cross(
    first: Cells,
    second: Cells,
    given: Sequence[tuple[Embedding, Embedding]] = (),
    settings: Settings | None = None,
    *,
    label_map: str | Path | None = None,
    orthologs: str | Path | None = None,
    folder: Path | None = None,
    quiet: bool = False,
) -> EvalResult:
    """Carry labels between two data sets, both ways, in every space that both are in.

    The spaces are those of the readers' model, the given ones, `mean-genes`, principal components of the genes that the
    two share (equal genes, or one-to-one orthologues) with and without Harmony, and two controls.

    Parameters
    ----------
    first, second
        The cells of each, with counts and, for our model and the shared genes, a reader.
    given
        Vectors of all cells of each side, in one space.
    settings
        Only `seed` and `bootstrap` are used.
    label_map
        Which labels are the same, see `label_map.read_label_map`; without it, those of equal names.
    orthologs
        Pairs of genes of the two species, see `uce.genes.orthologs.read_orthologs`; without it those of the bundled
        tables.
    folder
        Where to write the report, or None.
    quiet
        No progress on stderr.

    Returns
    -------
    Scores of the task `cross`. Forward is from the first to the second data set.

    Raises
    ------
    InputError
        No label is shared, or a table does not fit the data sets.
    """
    started = time.monotonic()
    settings = settings or Settings()
    pair, kept = pair_up(first, second, None if label_map is None else read_label_map(label_map))
    given = [(one.take(kept[0]), other.take(kept[1])) for one, other in given]
    listed = None if orthologs is None else read_orthologs(orthologs)
    candidates, genes = gather_spaces(pair, given, listed, seed=settings.seed, quiet=quiet)
    found = _judge_all(pair, candidates, settings, quiet=quiet)
    by_name = dict(zip((one.name for one in candidates), found, strict=True))
    seconds = {name: {"cross": round(sum(s.seconds for s in each.scores), 2)} for name, each in by_name.items()}
    result = EvalResult(
        tuple(Row(one.name, one.kind, "cross", score) for one in candidates for score in by_name[one.name].scores),
        {"cross": {name: each.details for name, each in by_name.items()}},
        {"cross": {name: each.predictions for name, each in by_name.items()}},
        tuple(_comparisons(pair, candidates, by_name, settings)),
        pair_facts(pair, genes, (first, second)),
        tuple(describe(one) for one in candidates),
        pair_leakage(pair, settings),
        tuple(_banners(pair, candidates, by_name)),
        environment(settings, pair_hashes(pair), seconds, time.monotonic() - started),
    )
    if folder is not None:
        _write(result, pair, candidates, folder, quiet=quiet)
    return result


def _judge_all(pair: Pair, candidates: Sequence[Candidate], settings: Settings, *, quiet: bool) -> list[Findings]:
    before = next((one.embedding for one in candidates if one.name == UNCORRECTED), None)
    crossing = Crossing(pair, settings, None if before is None else before.vectors)
    found = []
    with Progress("evaluating", len(candidates), unit="spaces", quiet=quiet) as progress:
        for candidate in candidates:
            progress.note(candidate.name)
            found.append(judge_space(crossing, candidate))
            progress.advance(1)
    return found


def judge_space(crossing: Crossing, candidate: Candidate) -> Findings:
    """Everything that is asked of one space; what cannot be answered says why, and stops nothing else."""
    try:
        if candidate.embedding is None:
            return Findings(unavailable(METRICS, candidate.status, candidate.note))
        embedding = candidate.embedding.finite()
    except NotPossible as reason:
        return Findings(unavailable(METRICS, "skipped", str(reason)))
    crossing = crossing.without(embedding)
    findings = [_answer(metrics, part, crossing, embedding) for metrics, part in _PARTS]
    details: dict[str, Any] = {"directions": [], "retrieval": [], "overcorrection": [], "unseen": []}
    for found in findings:
        for key, lines in found.details.items():
            details[key] += plain(lines)
    there = [found.predictions for found in findings if found.predictions]
    columns = {key: np.concatenate([one[key] for one in there]) for key in (there[0] if there else {})}
    return Findings(tuple(score for found in findings for score in found.scores), details, columns)


def _answer(metrics: tuple[str, ...], part: Part, crossing: Crossing, embedding: Embedding) -> Findings:
    started = time.monotonic()
    pairs: list[tuple[str, Family]] = [(metric, "cross") for metric in metrics]
    try:
        if not crossing.pair.shared:
            raise NotPossible("no shared label has cells with a vector on both sides")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of libraries; what a reader must know is in the notes
            found = part(crossing, embedding)
    except NotPossible as reason:
        return Findings(unavailable(pairs, "skipped", str(reason)))
    except Exception as error:  # one question that breaks must not take the others with it
        return Findings(unavailable(pairs, "failed", f"{type(error).__name__}: {error}"))
    seconds = (time.monotonic() - started) / len(found.scores)
    return replace(found, scores=tuple(replace(score, seconds=seconds) for score in found.scores))


def _comparisons(
    pair: Pair, candidates: Sequence[Candidate], found: Mapping[str, Findings], settings: Settings
) -> Iterator[dict[str, Any]]:
    """Paired differences in each direction, on the cells that labels are carried to."""
    real = [one.name for one in candidates if one.kind != "control" and found[one.name].predictions]
    if len(real) < 2 or len(pair.shared) < 2:
        return
    for direction, target in (("forward", pair.second), ("backward", pair.first)):
        columns = {name: _to(target.name, found[name].predictions) for name in real}
        for line in compare(columns, real[0], draws=settings.bootstrap, seed=settings.seed):
            yield {**line, "metric": f"cross_knn_f1_{direction}"}


def _to(target: str, columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    rows = columns["fold"] == f"to {target}"
    return {name: values[rows] for name, values in columns.items()}


def _banners(pair: Pair, candidates: Sequence[Candidate], found: Mapping[str, Findings]) -> Iterator[str]:
    if told := built_in(pair):
        yield f"{pair.first.need_reader().model.name} and mean-genes: {told}."
    for one in candidates:
        checks = found[one.name].details.get("overcorrection", []) if one.kind in ("own", "given") else []
        bad = [f"{line['check']}: {line['note']}" for line in checks if line["verdict"] == "over-corrected"]
        if bad:
            yield f"{one.name} is over-corrected ({'; '.join(bad)})."


def _write(result: EvalResult, pair: Pair, candidates: Sequence[Candidate], folder: Path, *, quiet: bool) -> None:
    from uce.evaluation.report import write_report

    result.write(folder)  # first: a fault in drawing must not lose the numbers
    say("drawing the report", quiet=quiet)
    shown = [one.embedding.finite() for one in candidates if one.embedding is not None and one.embedding.any_finite]
    write_report(result, pair.joined, shown, folder / "report.html")
