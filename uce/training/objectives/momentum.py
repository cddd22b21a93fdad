"""Momentum contrast: which key of a queue is of the same cell? After MoCo (He et al. 2020, arXiv 1911.05722).

One view of a cell makes a query by the encoder that is trained; the other makes a key by a slow copy of it. The key is
told from those of earlier batches, which wait in a queue, so that it takes no large batch to be told from many. A cell
is told from cells of its own dataset alone: to tell it from others, the batch effect would do. And it is told from keys
of the same two panels of genes alone: to tell it from others, the panels would do, as its own key is the only one in
sight with its batch's. So panels change more slowly than batches here, and when they do, the queue has to fill again.

Letters in shapes: B cells of one process, n of all, K keys of the queue, d width of a key, D width of a cell vector.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from numpy.typing import NDArray
from torch import Tensor, nn

from uce.errors import UsageError
from uce.model.encoder import Encoder
from uce.training.objectives.base import Objective, cell_vectors, within
from uce.training.objectives.collapse import doubts, effective_rank, found, kernel, scatter
from uce.training.objectives.contrastive import info_nce
from uce.training.objectives.gather import in_order, own_rows
from uce.training.objectives.keys import NOBODY, Keys, Queue, candidates
from uce.training.objectives.views import ViewBatch, ViewSettings, make_views

if TYPE_CHECKING:
    from uce.model.encoder import ModelConfig
    from uce.training.settings import PretrainConfig
    from uce.training.stream import Cells


@dataclass(frozen=True, eq=False)
class MomentumBatch(ViewBatch):
    """Two views of each cell: of the first the query is made, of the second the key.

    Attributes
    ----------
    origin
        () a number that stands for the dataset, in whatever company it is, and the panels.
    update
        () number of the update that the part belongs to: the key encoder moves once in each.
    """

    origin: NDArray[np.int64]
    update: NDArray[np.int64]


@dataclass(frozen=True)
class MomentumSettings(ViewSettings):
    """How the two views of a cell are made, and what they are told from.

    Raises
    ------
    UsageError
        A value out of range.
    """

    name: Literal["momentum"] = "momentum"
    queue: int = 4096  # keys that are kept, the newest ones of all datasets
    panel_updates: int = 32  # updates that have the same panels; keys of others are not told from
    momentum: float = 0.99  # share of the key encoder's weights that stays in an update
    temperature: float = 0.1  # by which cosines are divided
    dim: int = 64  # width of a key

    def __post_init__(self) -> None:
        super().__post_init__()
        within("objective.queue", self.queue, 2, 1 << 24)
        within("objective.panel_updates", self.panel_updates, 2, 1 << 40)
        within("objective.momentum", self.momentum, 0, 1)
        within("objective.temperature", self.temperature, 1e-3, 10)
        within("objective.dim", self.dim, 2, 1 << 14)

    def check(self, config: "PretrainConfig") -> None:
        """The queue holds a batch; the encoder is whole on every device."""
        super().check(config)
        if self.queue < config.part_size:
            each = f"batch_size / accumulate = {config.part_size}"
            msg = f"objective.queue = {self.queue}: holds less than the keys of a batch, {each}."
            raise UsageError(msg)
        if config.run.sharding == "fsdp":
            msg = "run.sharding = 'fsdp': objective.name = 'momentum' follows the whole encoder. Use 'ddp'."
            raise UsageError(msg)

    def make_batch(
        self, cells: "Cells", config: "PretrainConfig", part: int, *, rank: int = 0, world: int = 1
    ) -> MomentumBatch:
        """Two sentences of each cell."""
        update = part // config.accumulate
        panels = update // self.panel_updates
        views = make_views(self, cells, config, part, panels=panels, rank=rank, world=world)
        shown = f"{cells.dataset.name}\n{panels if 'panels' in self.view else ''}"
        return MomentumBatch(**vars(views), origin=np.array(_number(shown)), update=np.array(update))

    def build(self, model: "ModelConfig") -> "MomentumObjective":
        """The heads, the key encoder and an empty queue."""
        return MomentumObjective(self, model)


def _number(text: str) -> int:
    """A text as a number, never negative."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


class MomentumObjective(Objective):
    """Two heads, the key encoder and the queue; all of it is in a snapshot, so that a run goes on where it was.

    The key encoder is no parameter to learn: it follows the encoder, and begins as what the encoder is in the first
    update, wherever that came from. In evaluation nothing moves, and a cell is told from the keys of its own batch:
    the queue holds cells that were trained on.
    """

    moved: Tensor  # () last update in which the key encoder followed; -1: none yet

    def __init__(self, settings: MomentumSettings, model: "ModelConfig") -> None:
        super().__init__()
        self.settings = settings
        self.head = _head(model.out_dim, settings.dim)
        self.key_encoder = Encoder(model).requires_grad_(requires_grad=False)
        self.key_head = _head(model.out_dim, settings.dim).requires_grad_(requires_grad=False)
        self.register_buffer("moved", torch.tensor(-1))
        self.queue = Queue(settings.queue, settings.dim)

    def forward(self, encoder: "Encoder", batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Sums over the cells of a `MomentumBatch` that take part, see `compare`. In training, the queue moves on."""
        if self.training:
            self.follow(encoder, batch["update"])
        halves = zip(batch["tokens"].chunk(2), batch["keep"].chunk(2), strict=True)
        first, second = ({**batch, "tokens": tokens, "keep": keep} for tokens, keep in halves)
        cells = cell_vectors(encoder, first)
        with torch.no_grad():
            slow = cell_vectors(self.key_encoder, second)
        return self.compare(cells, slow, batch)

    @torch.no_grad()
    def follow(self, encoder: "Encoder", update: Tensor) -> None:
        """Move key encoder and key head after encoder and head, once in an update; He et al. 2020, equation 2.

        The first time, all the way. No branch on numbers, so that costs are counted without any.
        """
        share = torch.where(update == self.moved, 0.0, torch.where(self.moved < 0, 1.0, 1 - self.settings.momentum))
        pairs = [(slow, attrgetter(name)(encoder)) for name, slow in self.key_encoder.state_dict().items()]
        pairs += [(slow, attrgetter(name)(self.head)) for name, slow in self.key_head.state_dict().items()]
        for slow, fast in pairs:
            slow.lerp_(fast, share.to(slow.dtype))
        self.moved.copy_(update)

    def compare(self, cells: Tensor, slow: Tensor, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Sums over the cells of this process.

        Parameters
        ----------
        cells, slow
            (B, D) cell vectors of the first views by the encoder, and of the second ones by the key encoder.
        batch
            `cells`, `valid` (B,), `genes` (2B,), `origin`, `update` ().

        Returns
        -------
        loss, views
            Cross-entropies in nats and their number: their ratio is the loss. A cell takes part where both views have
            enough genes and there is a key to tell it from. The rest is for the log, see `fields`.
        """
        with torch.autocast(cells.device.type, enabled=False):
            queries = F.normalize(self.head(cells), dim=1)
            keys, lengths = self._keys(slow, batch)
            mine = own_rows(keys.rows, len(cells))
            own = Keys(*(part[mine] for part in keys))
            asked, positive, others = candidates(own, self.queue.keys if self.training else keys, batch["origin"])
            similarity = queries @ asked.vectors.T
            scale = torch.tensor(1 / self.settings.temperature, device=cells.device)
            losses = info_nce(similarity, scale, positive, others)
            taking, there = others.any(dim=1), own.origins != NOBODY
            weight = (taking & there).to(losses.dtype)
            with torch.no_grad():
                watched = found(similarity, positive, others, (lengths, asked.lengths))
                watched |= {"loss": losses, "views": torch.ones_like(losses)}
            sums = {name: (weight * value).sum() for name, value in watched.items()}
            sums |= {
                "skipped": (~there).to(weight.dtype).sum(),
                "filled": self.queue.filled,
                "parts": weight.new_ones(()),
            }
            if self.training:
                self.queue.add(keys)
            return sums | _spread(cells.detach(), keys, mine)

    @torch.no_grad()
    def _keys(self, slow: Tensor, batch: Mapping[str, Tensor]) -> tuple[Keys, Tensor]:
        """The keys of all processes in the order of the cells, and the centred lengths (B,) of this one's queries."""
        ours = F.normalize(self.key_head(slow), dim=1)
        # A key that is no number would stay in the queue for long.
        valid = batch["valid"] & ours.isfinite().all(dim=1)
        taking, genes = in_order(valid.to(torch.uint8)).bool(), in_order(batch["genes"].view(2, -1).T)
        lengths = genes.clamp(min=1).log()
        lengths = lengths - lengths[taking].sum(dim=0) / taking.sum().clamp(min=1)
        keys = Keys(
            in_order(ours.nan_to_num(0.0, 0.0, 0.0)),
            torch.where(taking, batch["origin"], NOBODY),
            in_order(batch["cells"]),
            lengths[:, 1],
        )
        return keys, lengths[own_rows(keys.rows, len(slow)), 0]

    def loss(self, sums: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        """Mean over the cells of the batch, also those that take no part: a constant, so that processes add up."""
        return sums["loss"] / len(batch["cells"])

    def fields(self, totals: Mapping[str, Tensor], *, step: int) -> dict[str, Any]:
        """The loss beside that of guessing, what finds a cell's key in the queue, and how cell vectors are spread.

        `recall` is the share of cells whose nearest key is their own, `recall_length` that of a matcher that sees the
        number of genes alone, `recall_chance` that of guessing; `negatives` how many keys a cell is told from, and
        `queue_filled` the share of the queue that holds a key. `alignment` is the mean squared distance of query and
        key; `uniformity` and `effective_rank` are those of the cell vectors within a batch.
        """
        views, parts = max(float(totals["views"]), 1.0), max(float(totals["parts"]), 1.0)
        names = ("loss", "loss_chance", "recall", "recall_chance", "recall_length", "alignment", "negatives")
        values = {name: float(totals[name]) / views for name in names}
        seen = max(float(totals["seen"]), 1.0)
        values["uniformity"] = math.log(max(float(totals["kernel"]) / seen, math.exp(-8)))  # the least of a pair
        values["effective_rank"] = effective_rank(totals["scatter"])
        values["queue_filled"] = float(totals["filled"]) / parts
        values["skipped_cells"] = float(totals["skipped"])
        wrong = doubts(values, step=step)
        return {**values, "suspect": wrong} if wrong else values


def _head(width: int, dim: int) -> nn.Sequential:
    """Two layers, as in MoCo v2 (Chen et al. 2020, arXiv 2003.04297).

    Without a bias, as what they map has length 1 and a bias would be most of what comes out.
    """
    return nn.Sequential(nn.Linear(width, width, bias=False), nn.ReLU(), nn.Linear(width, dim, bias=False))


def _spread(cells: Tensor, keys: Keys, mine: slice) -> dict[str, Tensor]:
    """How the cell vectors of the first views lie among each other."""
    vectors, taking = in_order(cells), keys.origins != NOBODY
    others = (keys.rows[mine, None] != keys.rows) & taking & taking[mine, None]
    near = kernel(vectors[mine] @ vectors.T, others)
    return {"kernel": near.sum(), "seen": others.any(dim=1).sum(), "scatter": scatter(vectors, taking, own=mine)}
