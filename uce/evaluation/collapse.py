"""Do the vectors of cells differ at all? Scores by rank cannot see it: squeezed vectors keep their neighbours.

Simple data look a little like a collapse: cells of one type lie close together, and two types span one direction. The
gates therefore ask for more than any sound embedding of real cells has shown, and for what the data cannot explain.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uce.evaluation.neighbors import Neighbors
from uce.health import COLLAPSED_COSINE, MIN_CELLS, entropy_rank, mean_cosine, spectrum

Floats = NDArray[np.float64]
Texts = NDArray[np.str_]

MAX_CELLS = 5000
LEAST_SPREAD = 1e-6
LEAST_RANK = 5.0
TOP_SHARE = 0.95
DUPLICATES = 0.01
FEW_DUPLICATES = 5
_BLOCK = 1024
NAN = float("nan")


@dataclass(frozen=True, eq=False)
class Spread:
    """How vectors of cells lie; NaN for what does not exist where all vectors are the same.

    Attributes
    ----------
    n_cells, dim
        What was measured.
    mean_cosine, mean_cosine_centred
        Between different cells, as the vectors are and after their mean was taken off. An offset that all share is
        harmless after centring, and fatal to a search by cosine.
    uniformity, uniformity_centred
        log of the mean of exp(-2 |x - y|^2) over pairs of unit vectors; 0 where all are the same (Wang and Isola 2020).
    effective_rank
        exp of the entropy of the singular values' shares, centred (Roy and Vetterli 2007).
    participation_ratio
        (sum l)^2 / sum l^2 of the variances l along the principal directions.
    top_share
        Share of the variance along the first of them.
    dead_dimensions
        Coordinates that vary less than a millionth of what the median coordinate does.
    outlier_dimensions
        Coordinates whose mean is more than ten standard deviations from 0.
    duplicate_rows
        Share of the cells whose very vector an earlier cell has.
    relative_spread
        Root mean square distance to the mean vector, over the mean length of a vector.
    norm_mean, norm_sd
        Of the lengths of the vectors.
    cumulative
        Share of the variance along the first directions together, at most 100.
    """

    n_cells: int
    dim: int
    mean_cosine: float
    mean_cosine_centred: float
    uniformity: float
    uniformity_centred: float
    effective_rank: float
    participation_ratio: float
    top_share: float
    dead_dimensions: int
    outlier_dimensions: int
    duplicate_rows: float
    relative_spread: float
    norm_mean: float
    norm_sd: float
    cumulative: tuple[float, ...]


def measure(vectors: NDArray[np.float32]) -> Spread:
    """How finite rows of (cells, dim) lie, in float64. For at most 5,000 cells, as it looks at all pairs."""
    x = vectors.astype(np.float64)
    mean, deviations = x.mean(axis=0), x.std(axis=0)
    norms = np.linalg.norm(x, axis=1)
    spread = float(np.sqrt(np.square(deviations).sum()) / max(norms.mean(), 1e-300))
    same = spread < LEAST_SPREAD
    share = np.ones(1) if same else _shares(x)
    return Spread(
        n_cells=len(x),
        dim=x.shape[1],
        mean_cosine=mean_cosine(unit(x)),
        mean_cosine_centred=NAN if same else mean_cosine(unit(x - mean)),
        uniformity=uniformity(unit(x)),
        uniformity_centred=NAN if same else uniformity(unit(x - mean)),
        effective_rank=entropy_rank(np.sqrt(share)),
        participation_ratio=float(1 / np.square(share).sum()),
        top_share=float(share[0]),
        dead_dimensions=int((deviations <= 1e-6 * np.median(deviations)).sum()),
        outlier_dimensions=int((np.abs(mean) > 10 * deviations).sum()),
        duplicate_rows=duplicates(vectors) / len(x),
        relative_spread=spread,
        norm_mean=float(norms.mean()),
        norm_sd=float(norms.std()),
        cumulative=tuple(np.cumsum(share)[:100].tolist()),
    )


def _shares(x: NDArray[np.floating]) -> Floats:
    """Shares of the variance along the principal directions; one of 1 where nothing varies."""
    power = spectrum(x)
    return power / power.sum() if power.sum() > 0 else np.ones(1)


def sample_rows(n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Positions of at most 5,000 of n cells, in order."""
    return np.arange(n) if n <= MAX_CELLS else np.sort(rng.choice(n, MAX_CELLS, replace=False))


def unit(rows: Floats) -> Floats:
    """Rows of length 1; rows of zeros stay."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms > 0, norms, 1))


def duplicates(rows: NDArray[np.generic]) -> int:
    """How many rows are the same as an earlier one."""
    return len(rows) - len(np.unique(rows, axis=0))


def uniformity(rows: Floats) -> float:
    """Log of the mean of exp(-2 |x - y|^2) over pairs of different unit vectors (cells, dim); NaN below two rows."""
    n = len(rows)
    if n < 2:
        return NAN
    parts = (rows[start : start + _BLOCK] @ rows.T for start in range(0, n, _BLOCK))
    total = sum(float(np.exp(4 * (part - 1)).sum()) for part in parts) - n
    return float(np.log(max(total, 1e-300) / (n * (n - 1))))


def hubness(neighbors: Neighbors) -> float:
    """Skewness of the number of cells that have a cell among their nearest (Radovanovic et al., JMLR 2010)."""
    from scipy.stats import skew

    times = np.bincount(neighbors.indices.ravel(), minlength=len(neighbors.indices))
    return float(skew(times)) if times.std() > 0 else 0.0


def cosine_histogram(vectors: NDArray[np.float32], bins: int = 50) -> dict[str, list[float]]:
    """Shares of pairs of different cells by cosine from -1 to 1, of the vectors and after centring; for few cells."""
    edges, pairs = np.linspace(-1, 1, bins + 1), np.triu_indices(len(vectors), 1)
    found = {"edges": edges.tolist()}
    x = vectors.astype(np.float64)
    for name, rows in (("raw", unit(x)), ("centred", unit(x - x.mean(axis=0)))):
        counts = np.histogram(np.clip((rows @ rows.T)[pairs], -1, 1), edges)[0]
        found[name] = (counts / max(1, counts.sum())).tolist()
    return found


def within_labels(labels: Texts, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors (cells, dim) without what their labels explain: each less the mean of its label."""
    names, codes = np.unique(labels, return_inverse=True)
    residual = vectors.astype(np.float64)
    for code in range(len(names)):
        mine = codes == code
        residual[mine] -= residual[mine].mean(axis=0)
    return residual.astype(np.float32)


def gates(spread: Spread, vectors: NDArray[np.float32], labels: Texts, repeated: int = 0) -> dict[str, str]:
    """What says that the vectors collapsed: metric -> reason; empty for sound vectors, and below 30 cells.

    Parameters
    ----------
    spread
        Of `vectors`.
    labels
        (cells,) of the same cells; directions that tell labels apart may dominate.
    repeated
        How many of these cells have the counts of an earlier one, and so must have its vector.
    """
    if spread.n_cells < MIN_CELLS:
        return {}
    if spread.relative_spread < LEAST_SPREAD:
        return {"mean_cosine": "collapsed: all cells have the same vector"}
    found = {}
    if spread.mean_cosine > COLLAPSED_COSINE:
        found["mean_cosine"] = (
            f"collapsed: the vectors all point one way (mean cosine {spread.mean_cosine:.4f}, above {COLLAPSED_COSINE})"
        )
    least = min(LEAST_RANK, spread.dim / 4)
    if spread.effective_rank < least or spread.top_share > TOP_SHARE:
        share = _shares(within_labels(labels, vectors))  # types far apart leave little else; that is no collapse
        rank = entropy_rank(np.sqrt(share))
        if len(share) > 1 and max(rank, spread.effective_rank) < least:
            found["effective_rank"] = (
                f"collapsed: {spread.dim} coordinates span {spread.effective_rank:.1f} directions, within labels "
                f"{rank:.1f}; fewer than {least:g}"
            )
        if len(share) > 1 and min(share[0], spread.top_share) > TOP_SHARE:
            found["top_share"] = (
                f"collapsed: one direction holds {spread.top_share:.1%} of the variance, within labels {share[0]:.1%}"
            )
    surplus = round(spread.duplicate_rows * spread.n_cells) - repeated
    if surplus >= FEW_DUPLICATES and surplus > DUPLICATES * spread.n_cells:
        found["duplicate_rows"] = f"collapsed: {surplus:,} of {spread.n_cells:,} cells have the vector of another cell"
    return found
