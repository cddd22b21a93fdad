"""What a batch costs, counted and not computed: the code that trains, run on tensors that have a shape and no numbers.

So a new objective or a change of the encoder needs no formula here. It takes about a second for 33 layers of 1280.
"""

import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from uce.model.blocks import Attention, attend
from uce.training.batch import Batch, to_tensors
from uce.training.trainee import Trainee

if TYPE_CHECKING:
    from uce.training.corpus import Corpus
    from uce.training.settings import PretrainConfig

_MOST_CELLS = 256


def _attention_flops(query: Any, key: Any, value: Any, *_args: Any, out_val: Any = None, **_kwargs: Any) -> int:  # noqa: ARG001
    flops: int = sdpa_flop_count(query, key, value)  # type: ignore[no-untyped-call]
    return flops


# torch counts attention on a GPU, and on a CPU its parts, but not this kernel.
FLOP_COUNTS = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}


def sampled(config: "PretrainConfig", world: int) -> "PretrainConfig":
    """The same run, its parts small enough to be looked at: at most 256 cells of each of `world` processes."""
    most = _MOST_CELLS * world
    return config if config.part_size <= most else replace(config, batch_size=most * config.accumulate)


@dataclass(frozen=True)
class Parameters:
    """How many numbers a run has; gene vectors are given."""

    encoder: int
    objective: int  # heads and what they are compared with
    block: int  # one of the encoder's blocks
    frozen: int = 0  # of the encoder's, those that adapters leave as they are

    @property
    def all(self) -> int:
        """Encoder and objective."""
        return self.encoder + self.objective

    @property
    def learned(self) -> int:
        """Those that are trained."""
        return self.all - self.frozen


def parameters(config: "PretrainConfig") -> Parameters:
    """Count the parameters of a configuration, without memory for them."""
    with torch.device("meta"):
        trainee = Trainee(config)
    parts = (trainee.encoder, trainee.objective, trainee.encoder.blocks[0])
    frozen = sum(p.numel() for p in trainee.parameters() if not p.requires_grad)
    encoder, objective, block = (sum(p.numel() for p in part.parameters()) for part in parts)
    return Parameters(encoder, objective, block, frozen)


@contextmanager
def _without_numbers(
    config: "PretrainConfig", corpus: "Corpus", batch: Batch
) -> Iterator[tuple[Trainee, dict[str, Tensor]]]:
    """A trainee and the batch on its device, none of which has numbers; so none is drawn either."""
    # Sizes that depend on numbers (a selection by booleans) are left open.
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    shapes = {dataset.species: dataset.vocabulary.vectors.shape for dataset in corpus.datasets}
    with FakeTensorMode(shape_env=ShapeEnv()):
        trainee = Trainee(config)
        trainee.encoder.recompute = config.run.recompute
        tables = {species: torch.empty(shape) for species, shape in shapes.items()}
        yield trainee, to_tensors(batch, tables, torch.device("cpu"))


def count_flops(config: "PretrainConfig", corpus: "Corpus", batch: Batch) -> int:
    """Floating-point operations of the forward pass, those on padding included; a multiply-add is two."""
    counter = FlopCounterMode(display=False, custom_mapping=FLOP_COUNTS)
    with _without_numbers(config, corpus, batch) as (trainee, tensors), torch.no_grad(), counter:
        trainee(tensors)
    return counter.get_total_flops()


def count_bytes(config: "PretrainConfig", corpus: "Corpus", batch: Batch, *, kind: str) -> tuple[int, int]:
    """Memory of a batch on its device, its gene vectors looked up; and that of its forward and backward pass.

    Parameters
    ----------
    kind
        Of the device, "cpu" or "cuda". On the latter attention keeps no (L, L) matrix for its dropout, and norms are
        computed in float32. Units that are dropped take a byte each there; here they take two or four, so that memory
        is overestimated by up to a tenth where there is dropout.

    Returns
    -------
    batch, activations
        The latter is the most at one time, beside weights, gradients and the batch.
    """
    with _without_numbers(config, corpus, batch) as (trainee, tensors):
        if kind != "cpu":
            _as_on_gpu(trainee)
        mixed = torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16")
        return sum(tensor.nbytes for tensor in tensors.values()), most_bytes(trainee, tensors, mixed)


def most_bytes(trainee: Trainee, tensors: Mapping[str, Tensor], mixed: torch.autocast) -> int:
    """The most memory that a forward and backward pass take, beside weights, gradients and the batch."""
    for parameter in trainee.parameters():
        parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in trainee.parameters() if parameter.grad is not None]
    alive = _Alive([*trainee.parameters(), *trainee.buffers(), *gradients, *tensors.values()])
    with alive:
        with mixed:
            sums = trainee(dict(tensors))
        trainee.objective.loss(sums, tensors).backward()  # type: ignore[no-untyped-call]
    return alive.most


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The most bytes of tensors alive at one time, without those that are given."""

    def __init__(self, given: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most, self._now = 0, 0
        self._sizes = {tensor.untyped_storage()._cdata: 0 for tensor in given}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._born(leaf.untyped_storage())
        return out

    def _born(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._sizes:
            return
        size = storage.nbytes()
        # A selection by booleans has an open size; of vectors of cells it is next to nothing.
        self._sizes[key] = size = size if isinstance(size, int) else 0
        self._now += size
        self.most = max(self.most, self._now)
        weakref.finalize(storage, self._died, key)

    def _died(self, key: int) -> None:
        self._now -= self._sizes.pop(key)


def _as_on_gpu(trainee: Trainee) -> None:
    for module in trainee.modules():
        if isinstance(module, Attention):
            module.attend = _without_dropout
        elif isinstance(module, nn.LayerNorm):
            module.register_forward_pre_hook(lambda _module, inputs: (inputs[0].float(),))


def _without_dropout(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, _dropout: float) -> Tensor:
    return attend(q, k, v, mask, 0.0)
