"""All tensors of a run as one flat mapping; back into modules, whole or shared (FSDP2); and as a model folder."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from uce.errors import ModelError
from uce.files import shorten
from uce.model.checkpoint import save_model
from uce.model.encoder import Encoder
from uce.training.adapters import merged
from uce.training.counting import parameters
from uce.training.records import describe

if TYPE_CHECKING:
    from uce.training.corpus import Corpus
    from uce.training.settings import PretrainConfig
    from uce.training.start import Start

_WEIGHTS, _AVERAGE, _OPTIMIZER = "weights.", "average.", "optimizer."
ENCODER, OBJECTIVE = f"{_WEIGHTS}encoder.", f"{_WEIGHTS}objective."


@torch.no_grad()
def pack(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Mapping[str, Tensor] | None = None,
    *,
    keep: bool = True,
) -> dict[str, Tensor]:
    """All tensors of a run, whole and on the CPU, under flat names, `optimizer.<parameter>.exp_avg` and the like.

    Torch's own `get_optimizer_state_dict` is not used: it takes a step where there is no state yet.

    Parameters
    ----------
    module, optimizer, average
        Of which each process may hold a share only (FSDP2). Then every process must call this.
    keep
        Whether this process wants the tensors. They are joined one at a time, so one that does not needs no memory.
    """
    packed = {}
    for name, tensor in _named(_bare(module), optimizer, average or {}):
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if keep:
            packed[name] = whole.to("cpu", copy=True).contiguous()
    return packed


def _named(
    module: nn.Module, optimizer: torch.optim.Optimizer, average: Mapping[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in module.state_dict().items():
        yield _WEIGHTS + name, tensor
    for name, tensor in average.items():
        yield _AVERAGE + name, tensor
    for name, parameter in module.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            yield f"{_OPTIMIZER}{name}.{key}", torch.as_tensor(value)


def _bare(module: nn.Module) -> nn.Module:
    return module.module if isinstance(module, DistributedDataParallel) else module


@torch.no_grad()
def unpack(
    tensors: Mapping[str, Tensor],
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Mapping[str, Tensor] | None = None,
) -> None:
    """Put the tensors of `pack` back, in place; each process takes its share.

    Raises
    ------
    ModelError
        They are not those of this module.
    """
    module = _bare(module)
    targets = {_WEIGHTS + name: tensor for name, tensor in module.state_dict().items()}
    targets |= {_AVERAGE + name: tensor for name, tensor in (average or {}).items()}
    _refuse_others(tensors, targets)
    for name, target in targets.items():
        _fill(target, tensors[name])
    for name, parameter in module.named_parameters():
        if moments := below(tensors, f"{_OPTIMIZER}{name}."):
            # AdamW keeps its counter of steps on the CPU, wherever the parameter is.
            optimizer.state[parameter] = {
                key: value.clone() if key == "step" else _fill(torch.empty_like(parameter), value)
                for key, value in moments.items()
            }


def _refuse_others(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> None:
    found = {name: tensor.shape for name, tensor in tensors.items() if not name.startswith(_OPTIMIZER)}
    wanted = {name: target.shape for name, target in targets.items()}
    if differing := sorted(name for name in found | wanted if found.get(name) != wanted.get(name)):
        msg = f"The snapshot holds another model: {shorten(differing)}. Start a run in another --output."
        raise ModelError(msg)


def _fill(target: Tensor, whole: Tensor) -> Tensor:
    if isinstance(target, DTensor):
        # Every process has read the whole tensor, so none needs to send a share.
        whole = distribute_tensor(whole, target.device_mesh, target.placements, src_data_rank=None)
    return target.copy_(whole)


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose names begin with `prefix`, under the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def write_model(
    folder: Path,
    tensors: Mapping[str, Tensor],
    config: "PretrainConfig",
    corpus: "Corpus",
    *,
    step: int,
    name: str | None = None,
    start: "Start | None" = None,
) -> None:
    """Write the weights that embed, averaged ones where there are, of packed tensors as a model folder.

    Adapters are added to the weights they belong to, so that what is written is an encoder like any other.
    """
    with torch.device("meta"):
        encoder = Encoder(config.model)
    state = below(tensors, ENCODER) | below(tensors, _AVERAGE)
    encoder.load_state_dict(merged(state, config.adapters), assign=True)
    ours = {table["species"] for table in corpus.tables}
    others = [table for table in start.gene_tables if table.get("species") not in ours] if start else []
    save_model(
        folder,
        encoder=encoder,
        rule=config.rule,
        specials=corpus.specials,
        gene_encoder=corpus.gene_encoder,
        gene_tables=[*corpus.tables, *others],
        info=describe(config, corpus, step) | _origin(config, start),
        classifier=config.objective.classifier(below(tensors, OBJECTIVE)),
        name=name,
    )


def _origin(config: "PretrainConfig", start: "Start | None") -> dict[str, Any]:
    """For the card: which model the run began from, and how much of it was trained."""
    if start is None:
        return {}
    trained = {"trained_parameters": parameters(config).learned}
    if config.adapters.rank:
        trained |= asdict(config.adapters)
    return {"adapted_from": {"model": start.name, "sha256": start.sha256, **trained}}
