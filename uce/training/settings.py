"""What a training run is made of: every number that decides its result, with its unit."""

import re
from dataclasses import dataclass, field
from typing import Literal

from uce.cells.sentences import SentenceRule
from uce.errors import UsageError
from uce.files import printable
from uce.model.encoder import ModelConfig
from uce.training.objectives import AnyObjectiveSettings
from uce.training.objectives.base import within
from uce.training.objectives.masked import MaskedSettings

_TAKEN = ("checkpoints", "trackers")  # folders of a run


def check_name(name: str) -> None:
    """Refuse what cannot be the name of a model folder in a run (UsageError)."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", name) or name in _TAKEN:
        allowed = "letters, digits, '.', '_' and '-' are needed, a letter or digit first"
        msg = f"name = {printable(name)!r}: {allowed}, and not {' or '.join(_TAKEN)}."
        raise UsageError(msg)


@dataclass(frozen=True)
class DataSettings:
    """Which cells are shown, how often, and how a batch is made of them."""

    corpus: str  # folder made by `uce corpus build`
    split: str = "train"  # of the corpus
    leave_out: tuple[str, ...] = ()  # datasets not to use, whatever their split
    balance: float = 0.5  # a dataset is picked in proportion to its weight times its cells to this power
    species_balance: float = 1.0  # the shares of species that come of it are taken to this power; 0: all alike
    window: int = 16  # blocks of 64 stored cells that are shuffled together
    thinning: float = 0.0  # share of cells whose counts are thinned (20 to 100 % kept) before their sentence is drawn

    def __post_init__(self) -> None:
        within("data.balance", self.balance, 0, 1)
        within("data.species_balance", self.species_balance, 0, 1)
        within("data.window", self.window, 1, 1 << 20)
        within("data.thinning", self.thinning, 0, 1)


@dataclass(frozen=True)
class ValidationSettings:
    """What is measured on cells that are not trained on, while training goes on."""

    every: int = 0  # updates from one measurement to the next; 0: none
    split: str = "validation"  # of the corpus
    batches: int = 16  # of the objective, always the same ones
    probe_cells: int = 1000  # labelled cells of each dataset whose nearest neighbours are asked; 0: none
    neighbours: int = 10  # that are asked

    def __post_init__(self) -> None:
        within("validation.every", self.every, 0, 1 << 40)
        within("validation.batches", self.batches, 1, 1 << 20)
        within("validation.probe_cells", self.probe_cells, 0, 1 << 20)
        within("validation.neighbours", self.neighbours, 1, 1 << 10)


@dataclass(frozen=True)
class RunSettings:
    """How a run is carried out. It changes what is learned by rounding at most, so it may change when a run goes on."""

    workers: int = 1  # threads that make batches ahead; 0: made when they are due
    cache_gb: float = 1.0  # memory of each process for cells read ahead of their batch
    sharding: Literal["ddp", "fsdp"] = "ddp"  # a whole model on every device, or a share of it (FSDP2)
    recompute: bool = False  # activation checkpointing: each block's inner values are computed again when due
    compile: bool = False  # blocks through torch.compile
    log_every: int = 50  # updates per line of the log
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ()  # beside metrics.jsonl
    snapshot_every: int = 1000  # updates per snapshot
    keep_snapshots: int = 2  # the newest ones that stay
    keep_every: int = 0  # and every one after a multiple of so many updates; 0: no others

    def __post_init__(self) -> None:
        within("run.workers", self.workers, 0, 256)
        within("run.cache_gb", self.cache_gb, 0, 1 << 20)
        for name in ("log_every", "snapshot_every", "keep_snapshots"):
            within(f"run.{name}", getattr(self, name), 1, 1 << 40)
        within("run.keep_every", self.keep_every, 0, 1 << 40)


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW, and its learning rate as a function of the step."""

    lr: float = 3e-4  # highest learning rate
    warmup: int = 500  # steps of linear rise to it; a half cosine falls from there
    final: float = 0.0  # learning rate of the last step, as a share of `lr`
    weight_decay: float = 0.01  # of matrices; vectors (biases, norms) are not decayed
    beta2: float = 0.98  # memory of the squared gradients
    clip: float = 1.0  # longest gradient
    anchor: float = 0.0  # after an update the encoder's weights go back by lr times this of the way to `start`

    def __post_init__(self) -> None:
        within("optimizer.lr", self.lr, 1e-9, 1)
        within("optimizer.warmup", self.warmup, 0, 1 << 40)
        within("optimizer.final", self.final, 0, 1)
        within("optimizer.weight_decay", self.weight_decay, 0, 1)
        within("optimizer.beta2", self.beta2, 0, 1 - 1e-9)
        within("optimizer.clip", self.clip, 1e-9, 1e9)
        within("optimizer.anchor", self.anchor, 0, 1 / self.lr)  # further back would be beyond the start


@dataclass(frozen=True)
class AdapterSettings:
    """Low-rank adapters on a frozen encoder, see `uce.training.adapters`."""

    rank: int = 0  # of each; 0: none, and the whole encoder is trained
    alpha: float = 16.0  # what they add is multiplied by this and divided by the rank

    def __post_init__(self) -> None:
        within("adapters.rank", self.rank, 0, 1 << 12)
        within("adapters.alpha", self.alpha, 1e-9, 1e9)


@dataclass(frozen=True)
class RecursionSettings:
    """How the cycles of a recursive encoder are supervised, see `uce.model.encoder.Recursion`."""

    supervision: int = 1  # steps in which a batch is read, each with its share of the cycles, a loss and an update
    gradient: int = 0  # of a step's cycles, how many, the last ones, have a gradient; 0: all

    def __post_init__(self) -> None:
        within("recursion.supervision", self.supervision, 1, 1000)
        within("recursion.gradient", self.gradient, 0, 1000)


@dataclass(frozen=True)
class PretrainConfig:
    """A whole run. Equal configurations give equal models on one kind of machine.

    Raises
    ------
    UsageError
        A value out of range.
    """

    data: DataSettings
    model: ModelConfig
    name: str = "model"  # of the model folder
    seed: int = 0  # of weights, order and draws
    steps: int = 20_000  # updates of the weights
    batch_size: int = 128  # cells of one update, over all processes
    accumulate: int = 1  # parts of an update that are computed one after the other; each is of one dataset
    draws: int = 1024  # genes drawn per cell in training; `rule` is for embedding
    late_draws: int = 1024  # the same in the last part of a run: short sentences are quick, long ones show detail
    late_from: float = 1.0  # share of the steps before that part; 1: there is none
    rule: SentenceRule = field(default_factory=SentenceRule)
    objective: AnyObjectiveSettings = field(default_factory=MaskedSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    recursion: RecursionSettings = field(default_factory=RecursionSettings)
    start: str = ""  # model (folder or name) whose encoder the run begins with; "": weights are drawn
    start_heads: str = ""  # finished run of the same objective whose heads it begins with
    adapters: AdapterSettings = field(default_factory=AdapterSettings)
    ema: float = 0.0  # memory of the averaged weights that embed; 0: the last ones
    precision: Literal["no", "bf16"] = "no"  # mixed precision of the forward pass
    validation: ValidationSettings = field(default_factory=ValidationSettings)
    run: RunSettings = field(default_factory=RunSettings)
    summary: str = ""  # first sentence of the card
    limits: tuple[str, ...] = ()  # of the card: what the model is not for
    licence: str = ""  # of the weights, for the card

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "draws", "late_draws", "accumulate"):
            within(name, getattr(self, name), 1, 1 << 40)
        check_name(self.name)
        within("seed", self.seed, 0, (1 << 63) - 1)
        within("ema", self.ema, 0, 1 - 1e-9)
        within("late_from", self.late_from, 0, 1)
        if self.batch_size % self.accumulate:
            msg = f"batch_size = {self.batch_size}: not a multiple of accumulate = {self.accumulate}."
            raise UsageError(msg)
        self._check_recursion()
        self._check_start()
        self.objective.check(self)

    def _check_recursion(self) -> None:
        cycles, supervision = self.model.cycles, self.recursion.supervision
        if cycles % supervision:
            msg = f"model.cycles = {cycles}: not a multiple of recursion.supervision = {supervision}, which share them."
            raise UsageError(msg)
        if self.recursion.gradient > cycles // supervision:
            each = f"a step of supervision has {cycles // supervision} cycles"
            msg = f"recursion.gradient = {self.recursion.gradient}: {each}. Take that or fewer, or 0 for all."
            raise UsageError(msg)
        # A state is carried on in memory alone, so all that looks at a run does so between batches.
        often = {
            "steps": self.steps,
            "run.log_every": self.run.log_every,
            "run.snapshot_every": self.run.snapshot_every,
        }
        for name, count in {**often, "validation.every": self.validation.every}.items():
            if count % supervision:
                msg = f"{name} = {count}: a batch has recursion.supervision = {supervision} updates; take a multiple."
                raise UsageError(msg)

    def _check_start(self) -> None:
        needing = {"start_heads": self.start_heads, "optimizer.anchor": self.optimizer.anchor}
        for name, value in {**needing, "adapters.rank": self.adapters.rank}.items():
            if value and not self.start:
                msg = f"{name} = {value!r}: needs start, the model to begin from."
                raise UsageError(msg)
        if self.adapters.rank and self.optimizer.anchor:
            msg = f"optimizer.anchor = {self.optimizer.anchor:g}: adapters freeze what it holds. Set it to 0."
            raise UsageError(msg)
        if self.adapters.rank and self.run.sharding == "fsdp":
            msg = f"adapters.rank = {self.adapters.rank}: not with run.sharding = 'fsdp'. Use 'ddp'."
            raise UsageError(msg)

    @property
    def part_size(self) -> int:
        """Cells of one of the parts of an update, over all processes."""
        return self.batch_size // self.accumulate

    @property
    def parts(self) -> int:
        """Parts of the whole run. Where a batch is supervised in several steps, all of them see the same ones."""
        return self.steps // self.recursion.supervision * self.accumulate

    def draws_at(self, part: int) -> int:
        """Genes drawn per cell in the part number `part`, counted from 0."""
        update = part // self.accumulate * self.recursion.supervision
        return self.late_draws if update >= self.late_from * self.steps else self.draws
