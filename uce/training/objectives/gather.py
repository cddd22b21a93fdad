"""Rows of all processes on every process, with the gradient of one process that has them all.

torch's public differentiable gather is deprecated and its successor private, and `Accelerator.gather` carries no
gradient.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _Gather(torch.autograd.Function):
    """All-gather; backward, the gradients that all processes have for the own rows are added up."""

    @staticmethod
    def forward(_ctx: Any, own: Tensor) -> Tensor:
        parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, own.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]


def gather(own: Tensor) -> Tensor:
    """(rows, ...) of this process to (processes x rows, ...), the same on each; all bring equally many rows.

    Where each process's loss is that of its own rows against all rows, and processes average their gradients, the
    result is the gradient of one process with all rows.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return own
    gathered: Tensor = _Gather.apply(own)  # type: ignore[no-untyped-call]
    return gathered


def place() -> int:
    """Number of this process; its rows stand behind those of the processes before it."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def in_order(own: Tensor) -> Tensor:
    """(B, ...) of each process to (n, ...) in the order of the cells of the part: process r of W has r, r + W, ..."""
    parts = torch.stack(torch.split(gather(own), len(own)), dim=1)
    return parts.flatten(0, 1)


def own_rows(rows: Tensor, cells: int) -> slice:
    """Which of the rows of `in_order` are the `cells` of this process."""
    return slice(place(), None, len(rows) // cells)
