"""Whether the vectors differ at all and say anything about the labels: numbers, and the gates they must pass."""

from dataclasses import replace

import numpy as np

from uce.evaluation import collapse
from uce.evaluation.alignment import K, align, words
from uce.evaluation.context import Context
from uce.evaluation.embeddings import Embedding
from uce.evaluation.results import Better, Family, Findings, Score
from uce.evaluation.splits import count_keys

_BETTER: dict[str, Better] = {
    "mean_cosine": "neither",
    "mean_cosine_centred": "neither",
    "uniformity": "neither",
    "effective_rank": "neither",
    "participation_ratio": "neither",
    "top_share": "neither",
    "dead_dimensions": "lower",
    "outlier_dimensions": "lower",
    "duplicate_rows": "lower",
    "hubness": "lower",
    "label_signal": "higher",
}
METRICS: tuple[tuple[str, Family], ...] = tuple((name, "collapse") for name in _BETTER)
_OF_ALL = ("hubness", "label_signal")
_HISTOGRAM_CELLS = 1000


def run(context: Context, embedding: Embedding) -> Findings:
    """Measure at most 5,000 cells, neighbours of all; a score whose gate fires is `suspect`, and its note says why."""
    rows = collapse.sample_rows(len(embedding.vectors), context.rng(102))
    vectors, labels, counts = embedding.vectors[rows], context.cells.labels[rows], context.cells.counts
    spread, aligned = collapse.measure(vectors), align(context, embedding)
    repeated = 0 if counts is None else collapse.duplicates(count_keys(counts[rows])[:, None])
    fired = collapse.gates(spread, vectors, labels, repeated)
    if not aligned.aligned:
        fired["label_signal"] = words(aligned, embedding.name)
    values = {name: float(getattr(spread, name)) for name in _BETTER if hasattr(spread, name)}
    values |= {"hubness": collapse.hubness(context.neighbors(embedding, K)), "label_signal": aligned.signal}
    sizes = dict.fromkeys(_BETTER, len(rows)) | dict.fromkeys(_OF_ALL, len(context.cells))
    scores = tuple(_score(name, values[name], fired.get(name, ""), sizes[name]) for name in _BETTER)
    return Findings(
        scores,
        {
            "spectrum": list(spread.cumulative),
            "cosine_histogram": collapse.cosine_histogram(vectors[:: -(-len(rows) // _HISTOGRAM_CELLS)]),
            "gates": list(fired.values()),
            "uniformity_centred": spread.uniformity_centred,
            "norm": {"mean": spread.norm_mean, "sd": spread.norm_sd},
            "relative_spread": spread.relative_spread,
            "left_out": embedding.left_out,
            "alignment": {"agreement": aligned.agreement, "shuffled": aligned.shuffled, "deviation": aligned.deviation},
        },
    )


def _score(name: str, value: float, reason: str, n_cells: int) -> Score:
    score = Score(
        name, value, "collapse", note=reason, better=_BETTER[name], n_cells=n_cells, headline=name == "mean_cosine"
    )
    if not np.isfinite(value):
        note = "there is no such number where all vectors, or all labels, are the same"
        return replace(score, status="undefined", note=note)
    return replace(score, status="suspect") if reason else score
