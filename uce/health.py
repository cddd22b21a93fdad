"""Signs that a set of cell vectors is sound, and words for what is probably wrong when it is not.

A model that reads nonsense still writes unit vectors. What gives it away: vectors that all point one way, that span few
directions, or that move as much between two draws of the same cell as between two cells.
"""

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

MIN_CELLS = 30  # below this the spread of cells says little
COLLAPSED_COSINE = 0.98
COLLAPSED_RANK = 2.5
NOISY_SHARE = 0.5
LOW_COUNTS = 0.8


@dataclass(frozen=True)
class Health:
    """The health line of one embedding; shares are fractions of 1, NaN where too few cells tell.

    Attributes
    ----------
    genes_covered, counts_covered
        Share of the gene names, and of all counts, that reached a gene of the table.
    cells, cells_without_vector
        Rows in all, and rows of NaN (no resolved count).
    mean_cosine
        Mean cosine between different cells.
    effective_rank
        exp(entropy) of the normalised eigenvalues of the centred vectors' covariance (Roy and Vetterli 2007).
    noise
        Mean of 1 - cosine between two independent draws of the same cell, divided by that between different cells.
    warnings
        What looks bad, with its likely cause.
    """

    genes_covered: float
    counts_covered: float
    cells: int
    cells_without_vector: int
    mean_cosine: float
    effective_rank: float
    noise: float
    warnings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing looks bad."""
        return not self.warnings

    def to_dict(self) -> dict[str, float | int | list[str]]:
        """The fields as plain values, for JSON and for `uns`."""
        return {**asdict(self), "warnings": list(self.warnings)}

    def __str__(self) -> str:
        line = (
            f"health: genes {self.genes_covered:.0%}, counts {self.counts_covered:.1%}, "
            f"cells without a vector {self.cells_without_vector:,} of {self.cells:,}, "
            f"mean cosine {self.mean_cosine:.3f}, effective rank {self.effective_rank:.1f}, "
            f"noise between draws {self.noise:.3f}"
        )
        return "\n".join([line, *(f"warning: {text}" for text in self.warnings)])


def mean_cosine(vectors: npt.NDArray[np.floating]) -> float:
    """Mean cosine over all pairs of different rows of unit vectors (cells, dim); NaN below two rows."""
    n = len(vectors)
    if n < 2:
        return float("nan")
    total = vectors.sum(axis=0, dtype=np.float64)
    return float((total @ total - n) / (n * (n - 1)))


def spectrum(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Squared singular values of the centred rows of (cells, dim), largest first."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    gram = centred.T @ centred if centred.shape[1] < len(centred) else centred @ centred.T
    return np.maximum(np.linalg.eigvalsh(gram)[::-1], 0)


def entropy_rank(weights: npt.NDArray[np.float64]) -> float:
    """How many equal weights these amount to: exp of the Shannon entropy of their shares."""
    share = weights[weights > 0] / weights.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def effective_rank(vectors: Floats) -> float:
    """Number of directions that the centred rows of (cells, dim) really use; NaN below two rows.

    exp of the Shannon entropy of the normalised eigenvalues of the covariance (Roy and Vetterli, EUSIPCO 2007).
    """
    if len(vectors) < 2:
        return float("nan")
    power = spectrum(vectors)
    if power.sum() < 1e-12 * len(vectors):  # rounding alone: every cell has the same vector
        return 1.0
    return entropy_rank(power)


def noise_share(first: Floats, second: Floats, spread: float) -> float:
    """Mean of 1 - cosine between two draws of the same cells, over that between different cells (`spread`)."""
    if not len(first) or not spread > 0:
        return float("nan")
    between_draws = 1.0 - (first.astype(np.float64) * second).sum(axis=1).mean()
    return float(between_draws / spread)


def examine(
    vectors: Floats,
    *,
    genes_covered: float,
    counts_covered: float,
    cells: int,
    cells_without_vector: int,
    draws: tuple[Floats, Floats] | None = None,
) -> Health:
    """Judge unit vectors (cells, dim) without NaN rows, a sample of all `cells`; `draws`: the same few cells twice."""
    cosine, rank = mean_cosine(vectors), effective_rank(vectors)
    noise = noise_share(*draws, spread=1.0 - cosine) if draws else float("nan")
    enough = len(vectors) >= MIN_CELLS
    warnings = []
    if counts_covered < LOW_COUNTS:
        warnings.append(
            f"only {counts_covered:.0%} of the counts reached a gene of the table: is the species right, and are the "
            f"names in the gene column those of its genes?"
        )
    if enough and (cosine > COLLAPSED_COSINE or rank < COLLAPSED_RANK):
        warnings.append(
            f"the cells hardly differ (mean cosine {cosine:.3f}, effective rank {rank:.1f}). Likely causes: gene "
            f"vectors of another protein encoder than the model was trained with, the wrong species, chromosome "
            f"vectors drawn anew for a model that has its own, or cells that really are alike."
        )
    if enough and noise > NOISY_SHARE:
        warnings.append(
            f"two draws of one cell differ {noise:.0%} as much as two cells do: few counts or few genes matched. "
            f"Average more draws with --replicates 4."
        )
    if cells and cells_without_vector > 0.1 * cells:
        warnings.append(f"{cells_without_vector:,} of {cells:,} cells have no count on any gene of the table.")
    return Health(genes_covered, counts_covered, cells, cells_without_vector, cosine, rank, noise, tuple(warnings))
