"""Whether cell vectors say anything: measures of spread, and the signs of a run that went wrong."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

# A fresh encoder gives all cells nearly one vector; before so many updates that is no sign of anything.
_SPREAD_FROM, _LEARNED_FROM = 200, 1000


def effective_rank(scatter: Tensor) -> float:
    """The exponential of the entropy of the normalised eigenvalues of a covariance (D, D), up to a factor; 1 for zeros.

    Source: Roy and Vetterli, EUSIPCO 2007.
    """
    values = torch.linalg.eigvalsh(scatter.double()).clamp(min=0)
    shares = values / values.sum().clamp(min=torch.finfo(values.dtype).tiny)
    return float(torch.special.entr(shares).sum().exp())


def scatter(everyone: Tensor, taking: Tensor, *, own: slice) -> Tensor:
    """(D, D) sum of squares of this process's vectors around the mean of all that take part.

    Parameters
    ----------
    everyone, taking
        (rows, D) vectors of all processes, and (rows,) whether each takes part.
    own
        The rows of this process.
    """
    weight = taking[:, None].to(everyone.dtype)
    mean = (everyone * weight).sum(dim=0) / weight.sum().clamp(min=1)
    centred = (everyone[own] - mean) * weight[own]
    return centred.T @ centred


def kernel(similarity: Tensor, others: Tensor) -> Tensor:
    """Mean of exp(-2 |z_i - z_j|^2) over the other vectors of each row, from cosines.

    Its mean over rows has `uniformity` as its log (Wang and Isola, ICML 2020): 0 collapsed, about -4 on the sphere.
    """
    values = torch.exp(4 * similarity - 4) * others
    return values.sum(dim=1) / others.sum(dim=1).clamp(min=1)


def told_by_length(own: Tensor, everyone: Tensor, positive: Tensor, candidates: Tensor) -> Tensor:
    """Chance that a cell is found by the number of its genes alone, (rows,).

    Parameters
    ----------
    own, everyone
        (rows,) and (columns,) log numbers of genes, centred in each view: panels differ in size.
    positive, candidates
        (rows, columns) the one right column, and all that may be chosen, the right one among them.

    Returns
    -------
    1 where the right column is nearest and alone, 1 / n where n are equally near, else 0.
    """
    distance = (own[:, None] - everyone).abs().masked_fill(~candidates, torch.inf)
    nearest = distance == distance.min(dim=1, keepdim=True).values
    return (nearest & positive).any(dim=1) / nearest.sum(dim=1)


def found(similarity: Tensor, positive: Tensor, others: Tensor, lengths: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """What finds the one right column of each row, for the log, (rows,).

    Parameters
    ----------
    similarity
        (rows, columns) cosines.
    positive, others
        (rows, columns) the right column, and those it is told from.
    lengths
        Of rows and columns, see `told_by_length`.
    """
    candidates = positive | others
    nearest = similarity.masked_fill(~candidates, -math.inf).argmax(dim=1)
    among = candidates.sum(dim=1)
    return {
        "loss_chance": among.log(),
        "recall": positive.gather(1, nearest[:, None]).squeeze(1),
        "recall_chance": 1 / among,
        "recall_length": told_by_length(*lengths, positive, candidates),
        "alignment": 2 - 2 * similarity[positive],
        "negatives": others.sum(dim=1),
    }


def doubts(values: Mapping[str, float], *, step: int) -> list[str]:
    """What looks wrong in the numbers of a contrastive run, a sentence for each."""
    found = []
    if step >= _SPREAD_FROM and values["uniformity"] > -1:
        found.append(f"uniformity {values['uniformity']:.2f} is above -1: vectors of different cells are much alike")
    if step >= _SPREAD_FROM and values["effective_rank"] < 5:
        found.append(f"effective rank {values['effective_rank']:.1f} is below 5: vectors lie in few directions")
    if step > _LEARNED_FROM and abs(values["loss"] - values["loss_chance"]) < 0.02:
        found.append(f"loss {values['loss']:.3f} is that of guessing")
    if step <= _SPREAD_FROM and values["recall"] > 0.99:
        found.append(f"recall {values['recall']:.3f} so early: the two views share something that is not the cell")
    if values["recall_length"] > 5 * values["recall_chance"]:
        found.append(
            f"the number of genes alone finds {values['recall_length']:.1%} of the cells, guessing "
            f"{values['recall_chance']:.1%}: thin the views (objective.view = 'panels+thin')"
        )
    return found
