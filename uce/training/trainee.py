"""What is trained: encoder and objective as one module, and how it is spread over devices."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from uce.devices import can_compile
from uce.errors import UsageError
from uce.model.encoder import Encoder, Recursion
from uce.training.adapters import add_adapters
from uce.training.batch import Batch
from uce.training.objectives.base import cell_vectors
from uce.training.recursion import changes

if TYPE_CHECKING:
    from accelerate import Accelerator

    from uce.training.settings import PretrainConfig, RunSettings
    from uce.training.start import Start


_CELLS_OF_A_MEAN = 256  # of a batch: enough for a mean, and little memory


class Trainee(nn.Module):
    """Encoder and objective as one module, so that one wrapper sees every parameter that is used.

    Parameters
    ----------
    start
        What it begins with; None: weights are drawn from torch's global generator.
    """

    def __init__(self, config: "PretrainConfig", start: "Start | None" = None) -> None:
        super().__init__()
        self.encoder = Encoder(config.model)
        if start:
            self.encoder.load_state_dict(start.encoder)
        if config.model.kind == "recursive":
            steps, gradient = config.recursion.supervision, config.recursion.gradient
            each = config.model.cycles // steps
            self.encoder.recursion = Recursion(steps, each, without_gradient=each - gradient if gradient else 0)
        self.objective = config.objective.build(config.model)
        if start and start.heads is not None:
            self.objective.load_state_dict(start.heads)
        elif start and start.classifier:
            self.objective.begin(start.classifier)
        if config.adapters.rank:
            add_adapters(self.encoder, config.adapters)

    def forward(self, batch: dict[str, Tensor], *, embed: bool = False) -> dict[str, Tensor]:
        """The sums of the objective, see `Objective.forward`; or with `embed` the `cells` (sentences, D) alone."""
        if embed:
            return {"cells": cell_vectors(self.encoder, batch)}
        sums: dict[str, Tensor] = self.objective(self.encoder, batch)
        return sums | changes(self.encoder.recursion) if self.training and self.encoder.recursion else sums


@torch.no_grad()
def start_linear(encoder: Encoder, batches: Iterable[Batch], tables: Mapping[str, Tensor]) -> None:
    """Let training start from the centred linear part of the read-out: all else begins at nothing and is learned.

    The cells of a corpus share most of their mean token. Subtracting it (by the constant of the linear map) leaves the
    differences, which the cosine then sees; the decoder's last layer begins at zero, as residual branches often do.
    """
    means = []
    for batch in batches:
        projected = encoder.project(tables[batch.species][torch.from_numpy(batch.vectors)])
        tokens, keep = (torch.from_numpy(array[:_CELLS_OF_A_MEAN]) for array in (batch.tokens, batch.keep))
        means.append(encoder.mean_token(projected[tokens], keep).mean(dim=0))
    encoder.mean_map.bias.copy_(-encoder.mean_map.weight @ torch.stack(means).mean(dim=0))
    for parameter in encoder.decoder[-1].parameters():
        parameter.zero_()


def spread(trainee: Trainee, accelerator: "Accelerator", settings: "RunSettings") -> nn.Module:
    """The module to call instead of the trainee, its weights on the device.

    With "ddp" every process has the whole model (through Accelerate), with "fsdp" a share of it (FSDP2, by torch
    itself: Accelerate trains without sharding on CPUs and does not say so). With "fsdp" the parameters become
    DTensors, so an optimizer is made afterwards.

    Raises
    ------
    UsageError
        There is one process, so nothing can be sharded.
    """
    trainee.encoder.recompute = settings.recompute
    if settings.compile and can_compile(accelerator.device, asked="run.compile"):
        torch._inductor.config.fallback_random = True  # the same units are dropped as without
        for block in trainee.encoder.blocks:
            block.compile(dynamic=True)
    trainee.to(accelerator.device)
    if settings.sharding == "ddp":
        wrapped: nn.Module = accelerator.prepare_model(trainee)
        return wrapped
    if accelerator.num_processes == 1:
        msg = "run.sharding = 'fsdp' shares a model among processes, and there is one. Use torchrun, or 'ddp'."
        raise UsageError(msg)
    for block in trainee.encoder.blocks:
        fully_shard(block)
    # The root's own weights (projection, decoder, heads) are few; gathered once, they stay for the backward pass.
    fully_shard(trainee, reshard_after_forward=False)
    return trainee


@contextlib.contextmanager
def exchanging(wrapped: nn.Module, *, gradients: bool) -> Iterator[None]:
    """A context for forward and backward in which processes do, or do not yet, add up their gradients."""
    if isinstance(wrapped, FSDPModule):
        wrapped.set_requires_gradient_sync(gradients)
        yield
    elif isinstance(wrapped, DistributedDataParallel) and not gradients:
        with wrapped.no_sync():
            yield
    else:
        yield


def let_go(wrapped: nn.Module) -> None:
    """Forget the whole weights of the root that a forward pass without a backward pass leaves behind (FSDP2).

    The next pass would use them, whatever became of the weights since.
    """
    if isinstance(wrapped, FSDPModule):
        wrapped.reshard()


def clip(parameters: Iterable[nn.Parameter], most: float) -> float:
    """Shorten the gradients to a joint length of `most`; returns the length before. NaN where one is not finite."""
    length = nn.utils.clip_grad_norm_(list(parameters), most)
    return float(length.full_tensor() if hasattr(length, "full_tensor") else length)
