"""Keys of cells, and a queue of them: the newest ones of all datasets, first in, first out."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

NOBODY = -1  # origin of a place without a key


class Keys(NamedTuple):
    """Keys and whose they are.

    Attributes
    ----------
    vectors
        (K, d) of length 1.
    origins, rows
        (K,) what keys must share to be told apart, as a number, -1 where there is no key; the row of the cell.
    lengths
        (K,) log number of genes in the view, less its mean over the batch.
    """

    vectors: Tensor
    origins: Tensor
    rows: Tensor
    lengths: Tensor


class Queue(nn.Module):
    """A ring of so many keys of a width. It has no parameters; all of it is in the state, so that a run goes on.

    One ring for all datasets and not one for each: all keys in it are then equally fresh. In a ring of their own, those
    of a dataset that comes rarely would be of an encoder that is long gone.
    """

    next: Tensor  # () place that is filled next
    vectors: Tensor
    origins: Tensor
    rows: Tensor
    lengths: Tensor

    def __init__(self, places: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("next", torch.tensor(0))
        self.register_buffer("vectors", torch.zeros(places, dim))
        self.register_buffer("origins", torch.full((places,), NOBODY))
        self.register_buffer("rows", torch.zeros(places, dtype=torch.int64))
        self.register_buffer("lengths", torch.zeros(places))

    @property
    def keys(self) -> Keys:
        """All places, those without a key among them."""
        return Keys(self.vectors, self.origins, self.rows, self.lengths)

    @property
    def filled(self) -> Tensor:
        """() share of the places that hold a key."""
        return (self.origins != NOBODY).to(self.vectors.dtype).mean()

    @torch.no_grad()
    def add(self, keys: Keys) -> None:
        """Put keys, no more than there are places, where the oldest ones are; the first place comes after the last."""
        places, count = len(self.rows), len(keys.rows)
        taken = (self.next + torch.arange(count, device=self.next.device)) % places
        for there, new in zip(self.keys, keys, strict=True):
            there[taken] = new.to(there.dtype)
        self.next.copy_((self.next + count) % places)


def candidates(own: Keys, pool: Keys, origin: Tensor) -> tuple[Keys, Tensor, Tensor]:
    """What each query is compared with: the key of its own cell, and the keys of other cells of its dataset.

    Parameters
    ----------
    own
        (B,) keys of the cells that ask.
    pool
        (K,) keys of any cells.
    origin
        () dataset of the cells that ask.

    Returns
    -------
    asked, positive, others
        (B + K,) the own keys, then those of the pool; (B, B + K) where a query has its own; and where it has others.
    """
    asked = Keys(*(torch.cat(parts) for parts in zip(own, pool, strict=True)))
    count = len(own.rows)
    positive = torch.eye(count, len(asked.rows), dtype=torch.bool, device=origin.device)
    others = (asked.origins == origin) & (asked.rows != own.rows[:, None])
    others[:, :count] = False
    return asked, positive, others
