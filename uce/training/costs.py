"""What training costs: floating-point operations, how quick devices are, and whether a run fits into their memory."""

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from uce.devices import memory_bytes
from uce.errors import UsageError
from uce.model.encoder import ModelConfig
from uce.progress import size_text
from uce.training.batch import Batch
from uce.training.counting import count_flops, sampled
from uce.training.memory import memory
from uce.training.settings import RecursionSettings
from uce.training.stream import Stream

if TYPE_CHECKING:
    from uce.training.corpus import Corpus
    from uce.training.settings import PretrainConfig

SAMPLE_PARTS = 3  # spread over a run; parts differ by their dataset
_MEASURE_SECONDS = 0.2

# Dense peaks in TFLOP/s, bf16 and fp32 without TF32, from NVIDIA's data sheets: half of those with sparsity, and of a
# GeForce those with sums in float32. The first pattern that is in the name of a device counts.
_PEAKS: tuple[tuple[str, float | None, float], ...] = (
    (r"\bB200\b", 2250, 75),
    (r"\bH[12]00 NVL\b", 835, 60),
    (r"\bH100 PCIe\b", 756, 51),
    (r"\bH[12]00\b", 989, 67),
    (r"\bA100\b", 312, 19.5),
    (r"\bL40S\b", 362, 91.6),
    (r"\bL4\b", 121, 30.3),
    (r"\bA10\b", 125, 31.2),
    (r"\bRTX 4090$", 165, 82.6),
    (r"\bV100-SXM", None, 15.7),
    (r"\bV100-PCIE", None, 14),
)


def forward_flops(config: ModelConfig, lengths: "NDArray[np.integer] | Sequence[int]", distinct_tokens: int) -> float:
    """Floating-point operations of the encoder for some sentences; norms, activations and sums are left out.

    A multiply-add is two. The last block computes only CLS's query, output and feed-forward, in the last cycle; without
    dropout no keys and values either.

    Parameters
    ----------
    lengths
        Tokens of each sentence, without padding.
    distinct_tokens
        Each is projected once.
    """
    dim, long = config.dim, np.asarray(lengths, dtype=np.float64)
    tokens, cells = float(long.sum()), len(long)
    around = 2 * dim * dim + 2 * dim * config.hidden  # query, output, feed-forward: of each token that is computed
    key_value = 2 * dim * dim
    most = tokens * (around + key_value) + 2 * dim * float((long**2).sum())
    if config.dropout or config.heads == dim:
        last = cells * around + tokens * key_value + 2 * dim * tokens
    else:  # as `Attention._of_few` has it, but for a sentence of CLS alone
        alone = np.count_nonzero(long == 1)
        last = cells * (around + key_value) + 2 * dim * (config.heads * (tokens - alone) + alone)
    decoder = dim * config.decoder_dim + config.decoder_dim * config.out_dim + 2 * config.out_dim**2
    if config.readout == "cls+mean":
        decoder += dim * config.out_dim
    projection = float(distinct_tokens) * config.protein_dim * dim
    return 2 * (projection + (config.layers * config.cycles - 1) * most + last + cells * decoder)


@dataclass(frozen=True)
class Work:
    """What some parts of a run hold, and the forward operations on them, padding left out."""

    tokens: int
    cells: int
    flops: float
    free: float = 0.0  # of them, those of a recursion's cycles that have no gradient

    @property
    def training_flops(self) -> float:
        """Forward, and twice as much backward. What is computed again to save memory is not counted."""
        return 3 * self.flops - 2 * self.free


def sample_batches(config: "PretrainConfig", corpus: "Corpus", *, world: int = 1) -> list[Batch]:
    """The first process's share of some parts, spread over the run; of large ones a sample (see `sampled`)."""
    config = sampled(config, world)
    stream = Stream(corpus, config)
    parts = np.linspace(0, config.parts - 1, SAMPLE_PARTS).astype(int)
    return [config.objective.make_batch(stream.cells(part), config, part, world=world) for part in parts.tolist()]


def work(config: "PretrainConfig", corpus: "Corpus", batches: Sequence[Batch], *, world: int = 1) -> Work:
    """What these batches are in one update. Of the encoder real tokens are reckoned, the objective is counted."""
    tokens, flops, free = 0, 0.0, 0.0
    # Of the objective a single block tells as much as many.
    block = replace(config.model, layers=1, kind="stacked", cycles=1, inject="every")
    shallow = replace(config, model=block, recursion=RecursionSettings())
    each = config.model.cycles // config.recursion.supervision
    supervised = replace(config.model, cycles=each)
    without = each - (config.recursion.gradient or each)
    for batch in batches:
        lengths, distinct = batch.keep.sum(axis=1), len(batch.vectors)
        padded = forward_flops(shallow.model, np.full(len(lengths), batch.keep.shape[1]), distinct)
        objective = count_flops(shallow, corpus, batch) - padded
        flops += forward_flops(supervised, lengths, distinct) + objective
        if without:  # as much as so many cycles more would be: no projection, no read-out
            more = replace(supervised, cycles=each + without)
            free += forward_flops(more, lengths, distinct) - forward_flops(supervised, lengths, distinct)
        tokens += int(lengths.sum())
    return Work(tokens, len(batches) * (sampled(config, world).part_size // world), flops, free)


def training_flops_per_token(config: "PretrainConfig", corpus: "Corpus", *, world: int = 1) -> float:
    """Operations of forward and backward pass per token, from a few parts.

    The share of the peak that a run reaches (MFU) is tokens per second times this, over devices and `peak_flops`.
    Tokens are those of sentences, without padding. With more processes more tokens are projected by several of them.
    """
    done = work(config, corpus, sample_batches(config, corpus, world=world), world=world)
    return done.training_flops / done.tokens


def peak_flops(device: torch.device, precision: str) -> float | None:
    """Operations per second that a device can reach: of known GPUs the data sheet's, of a CPU a measured product's.

    Parameters
    ----------
    precision
        "bf16", or anything else for float32.

    Returns
    -------
    None where it is not known.
    """
    if device.type == "cuda":
        return known_peak(torch.cuda.get_device_name(device), precision)
    return _measured_peak(precision, torch.get_num_threads()) if device.type == "cpu" else None


@cache
def _measured_peak(precision: str, _threads: int) -> float:
    """With another number of threads it is measured again."""
    a = torch.ones(1024, 1024, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    best, until = float("inf"), time.perf_counter() + _MEASURE_SECONDS
    while time.perf_counter() < until:
        began = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - began)
    return 2 * len(a) ** 3 / best


def known_peak(name: str, precision: str) -> float | None:
    """Dense peak of a GPU by its name, in operations per second; None where it is not known."""
    for pattern, bf16, fp32 in _PEAKS:
        if re.search(pattern, name):
            peak = bf16 if precision == "bf16" else fp32
            return None if peak is None else peak * 1e12
    return None


def check_fits(config: "PretrainConfig", corpus: "Corpus", device: torch.device, world: int) -> None:
    """Refuse a run that would end for want of memory, before it begins.

    Raises
    ------
    UsageError
        With what a device has, what the run needs, and what would make it less.
    """
    needed = memory(config, corpus, sample_batches(config, corpus, world=world), kind=device.type, world=world)
    # Processes of one machine share its memory, GPUs have their own.
    sharing = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if device.type == "cpu" else 1
    there = memory_bytes(device) // sharing
    if needed.total <= there:
        return
    cells = config.part_size // world
    ways = [] if cells == 1 else [f"accumulate={2 * config.accumulate} or more"]
    if not config.run.recompute and config.model.layers > 1:
        ways.append("run.recompute=true")
    if config.run.sharding == "ddp":
        ways.append("run.sharding=fsdp" if world > 1 else "several devices and run.sharding=fsdp")
    if getattr(config.objective, "cache_cells", None) == 0:
        ways.append(f"objective.cache_cells={max(1, cells // 4)}")
    out = ", or ".join(ways or ["a smaller model"])
    msg = (
        f"needs about {size_text(needed.total)} on each {device.type} device, which has {size_text(there)}: "
        f"{size_text(needed.standing)} for weights, optimizer and gene vectors, "
        f"{size_text(needed.activations + needed.batch)} for {cells} cells at a time. Use {out}."
    )
    raise UsageError(msg)


def check_width(config: "PretrainConfig", corpus: "Corpus") -> None:
    """Refuse a model that is made for gene vectors of another width.

    Raises
    ------
    UsageError
        Naming both widths.
    """
    width = corpus.specials.shape[1]
    if config.model.protein_dim != width:
        msg = f"model.protein_dim = {config.model.protein_dim}, but {corpus.gene_encoder} vectors are {width} wide."
        raise UsageError(msg)
