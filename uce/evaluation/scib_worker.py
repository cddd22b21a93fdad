"""A process of its own that computes the scIB table: jax and its memory stay in it.

It reads one request per line of standard input, {"folder": ..., "parts": [...]}, where the folder holds `vectors`,
`labels`, `batches`, `indices`, `distances` and, for PCR, `before` as `.npy`, and writes one line of JSON for each.
"""

import gc
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from uce.evaluation import scib_quick as quick
from uce.evaluation.neighbors import Neighbors

if TYPE_CHECKING:
    from anndata import AnnData

PACKAGE = "scib-metrics"

# Operations, roughly, above which a routine of the package would take the better part of a minute.
_LIMIT = 4e9
_KMEANS_ROUNDS = 300


@dataclass(frozen=True)
class Part:
    """One field of the `Benchmarker`: column there -> metric here, and arguments if not the defaults."""

    family: str
    columns: dict[str, str]
    options: dict[str, Any] | None = None


_KMEANS, _LEIDEN = "nmi_ari_cluster_labels_kmeans", "nmi_ari_cluster_labels_leiden"
PARTS: dict[str, Part] = {
    "isolated_labels": Part("bio", {"isolated_labels": "isolated_labels"}),
    _KMEANS: Part("bio", {f"{_KMEANS}_nmi": "kmeans_nmi", f"{_KMEANS}_ari": "kmeans_ari"}),
    "silhouette_label": Part("bio", {"silhouette_label": "silhouette_label"}),
    "clisi_knn": Part("bio", {"clisi_knn": "clisi"}),
    _LEIDEN: Part("bio", {f"{_LEIDEN}_nmi": "leiden_nmi", f"{_LEIDEN}_ari": "leiden_ari"}),
    "bras": Part("batch", {"bras": "bras"}),
    "ilisi_knn": Part("batch", {"ilisi_knn": "ilisi"}),
    "kbet_per_label": Part("batch", {"kbet_per_label": "kbet"}),
    "graph_connectivity": Part("batch", {"graph_connectivity": "graph_connectivity"}),
    # Unscaled it is (after - before), from which the score follows without the cut at 0.
    "pcr_comparison": Part("batch", {"pcr_comparison": "pcr_comparison"}, {"scale": False}),
}


@dataclass(frozen=True, eq=False)
class Job:
    """One embedding, and everything that its table is computed from."""

    vectors: NDArray[np.float32]
    labels: NDArray[np.int64]
    batches: NDArray[np.int64]
    indices: NDArray[np.int64]
    distances: NDArray[np.float32]
    before: NDArray[np.float32] | None = None

    @classmethod
    def read(cls, folder: Path) -> "Job":
        """From the arrays in a folder."""
        return cls(**{path.stem: np.load(path, allow_pickle=False) for path in folder.glob("*.npy")})

    @property
    def n_labels(self) -> int:
        """How many labels there are."""
        return int(self.labels.max()) + 1

    @cached_property
    def widths(self) -> NDArray[np.float64]:
        """Silhouettes of the cells, which two scores share."""
        return quick.silhouettes(self.vectors, self.labels)

    def slim(self) -> "AnnData":
        """A copy that the package may write to: the vectors, two columns, nothing else."""
        import pandas as pd
        from anndata import AnnData

        names = np.arange(len(self.labels)).astype(str)
        obs = pd.DataFrame({"label": self.labels, "batch": self.batches}, index=names)
        before = self.vectors[:, :1] if self.before is None else self.before
        return AnnData(obs=obs, obsm={"X": self.vectors.copy(), "X_before": before.copy()})

    def neighbors(self, k: int) -> Any:
        """Of every cell itself and the k - 1 nearest others, as the package wants them."""
        return quick.with_self(Neighbors(self.indices, self.distances).first(k - 1))


def by_package(job: Job, part: str) -> dict[str, float]:
    """One field of the table, by a `Benchmarker` that is asked for this field alone."""
    from scib_metrics.benchmark import BatchCorrection, Benchmarker, BioConservation

    spec = PARTS[part]
    kind = BioConservation if spec.family == "bio" else BatchCorrection
    only = kind(**{name: (spec.options or True) if name == part else False for name in kind.__dataclass_fields__})
    benchmarker = Benchmarker(
        job.slim(),
        batch_key="batch",
        label_key="label",
        embedding_obsm_keys=["X"],
        bio_conservation_metrics=only if spec.family == "bio" else None,
        batch_correction_metrics=only if spec.family == "batch" else None,
        pre_integrated_embedding_obsm_key="X_before",
        progress_bar=False,
    )
    benchmarker.prepare(neighbor_computer=lambda _, k: job.neighbors(k))
    benchmarker.benchmark()
    row = benchmarker.get_results(min_max_scale=False, clean_names=False).loc["X"]
    return {ours: float(row[column]) for column, ours in spec.columns.items()}


def _quick_kmeans(job: Job) -> dict[str, float]:
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    clusters = quick.kmeans_clusters(job.vectors, job.n_labels)
    return {
        "kmeans_nmi": float(normalized_mutual_info_score(job.labels, clusters)),
        "kmeans_ari": float(adjusted_rand_score(job.labels, clusters)),
    }


def _quick_pcr(job: Job) -> dict[str, float]:
    assert job.before is not None
    after, before = (quick.batch_share(values, job.batches) for values in (job.vectors, job.before))
    return {"pcr_comparison": after - before}


def _kbet(job: Job) -> dict[str, Any]:
    from scib_metrics import kbet_per_label

    score, table = kbet_per_label(job.neighbors(50), job.batches, job.labels, return_df=True)
    return {"kbet": float(score), "kbet_skipped": table.loc[table["kBET"].isna(), "cluster"].tolist()}


QUICK: dict[str, tuple[str, Callable[[Job], dict[str, float]]]] = {
    _KMEANS: ("scikit-learn", _quick_kmeans),
    "silhouette_label": ("numpy", lambda job: {"silhouette_label": float((job.widths.mean() + 1) / 2)}),
    "isolated_labels": (
        "numpy",
        lambda job: {"isolated_labels": quick.isolated_score(job.widths, job.labels, job.batches)},
    ),
    "bras": ("numpy", lambda job: {"bras": quick.bras(job.vectors, job.labels, job.batches)}),
    "pcr_comparison": ("numpy", _quick_pcr),
}


def is_slow(job: Job, part: str) -> bool:
    """Whether the package's routine would take too long, or, for PCR, whether it has no value where there is one."""
    n, dim = job.vectors.shape
    if part == "pcr_comparison":
        # The regression divides by the variance of every component, and some of these have none.
        return n * dim * min(n, dim) > _LIMIT or n <= dim or bool((np.ptp(job.vectors, axis=0) == 0).any())
    if part == "bras":
        return True  # it is compiled anew for every size of a label, seconds each
    operations = _KMEANS_ROUNDS * n * job.n_labels * dim if part == _KMEANS else n * n * dim
    return bool(operations > _LIMIT)


def compute(job: Job, part: str) -> tuple[dict[str, Any], str]:
    """The values of one field, and whose routine they are from."""
    if part in QUICK and is_slow(job, part):
        implementation, routine = QUICK[part]
        found: dict[str, Any] = routine(job)
    else:
        implementation, found = PACKAGE, _kbet(job) if part == "kbet_per_label" else by_package(job, part)
    if part == "pcr_comparison" and job.before is not None:
        share = quick.batch_share(job.before, job.batches)
        found["pcr_unclipped"] = -found["pcr_comparison"] / share if share else float("nan")
        found["pcr_comparison"] = max(0.0, found["pcr_unclipped"]) if share else float("nan")
    return found, implementation


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Every field that is asked for: {field: {"values", "implementation", "seconds"} or {"error"}}."""
    job = Job.read(Path(request["folder"]))
    result: dict[str, Any] = {}
    for part in request["parts"]:
        began = time.perf_counter()
        try:
            values, implementation = compute(job, part)
            result[part] = {"values": values, "implementation": implementation}
        except Exception as error:  # one field that fails must not stop the others
            result[part] = {"error": f"{type(error).__name__}: {error}"}
        result[part]["seconds"] = time.perf_counter() - began
    return result


def _import_package() -> str:
    """Import what is slow to import, quietly; the version of the package."""
    warnings.simplefilter("ignore")
    import scib_metrics
    import scib_metrics.benchmark
    import sklearn.cluster  # noqa: F401

    scib_metrics.settings.verbosity = logging.ERROR
    warnings.simplefilter("ignore")
    quick.steady_diffusion()
    # The package collects garbage seven times for each field; what was imported need not be searched each time.
    gc.collect()
    gc.freeze()
    return str(scib_metrics.__version__)


def main() -> None:
    """Answer until the input ends."""
    # What libraries print goes to standard error, so that it cannot be taken for an answer.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    version = _import_package()
    for line in sys.stdin:
        print(json.dumps({"version": version, "parts": answer(json.loads(line))}), file=answers, flush=True)


if __name__ == "__main__":
    main()
