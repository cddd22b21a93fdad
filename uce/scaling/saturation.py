"""The learning saturation point: as it was published, and as it must be to mean what its name says.

DenAdel et al. (Nature Methods 2026, 10.1038/s41592-026-03120-y) call a model saturated at the smallest size of which
any run has more than 95 % of the best score of all runs. A score that starts high stays within 5 % of itself whatever
it gains, and one lucky run is enough; so curves that rise without end are called saturated.
"""

import numpy as np

from uce.scaling.fits import Floats, Shape, fit, predict, seed_weights
from uce.scaling.verdicts import Verdict

SHARE = 0.95


def published_point(sizes: Floats, scores: Floats) -> float:
    """The smallest of `sizes` (K,) of which a run has more than 95 % of the best of `scores` (seeds, K).

    NaN where there is no run at all.
    """
    if not np.isfinite(scores).any():
        return float("nan")
    enough = np.nanmax(np.where(np.isfinite(scores), scores, -np.inf), axis=0) > SHARE * np.nanmax(scores)
    return float(sizes[int(np.argmax(enough))])


def corrected_point(sizes: Floats, scores: Floats, verdict: Verdict, *, floor: float) -> float | None:
    """The smallest of `sizes` by which the means over seeds have 95 % of the height of their plateau above `floor`.

    Read off the curve through the means, as the best of noisy means is no plateau. Only of a curve that is judged
    saturated: on one that may still rise, 95 % of what was seen is no share of anything. So it is None otherwise, where
    the curve falls, where training brought nothing, and where the plateau lies beyond the largest size.

    Parameters
    ----------
    floor
        Score of the untrained encoder, or chance where that is higher.
    """
    if verdict.word != "saturated" or verdict.choice is None or verdict.upper < 0:
        return None
    there = np.isfinite(scores).any(axis=0)
    sizes, scores = sizes[there], scores[:, there]
    shape: Shape = "flat" if verdict.choice.shape == "flat" else "plateau"
    x = sizes / sizes[0]
    fitted = fit(shape, x, np.nanmean(scores, axis=0), seed_weights(scores))
    height = float(fitted[0]) - floor
    enough = predict(shape, fitted, x) - floor >= SHARE * height
    return float(sizes[int(np.argmax(enough))]) if height > 0 and enough.any() else None
