"""What a training run is made of: every number that decides its result, with its unit."""

from dataclasses import dataclass, field
from typing import Literal

from uce.cells.sentences import SentenceRule
from uce.model.encoder import ModelConfig
from uce.training.objectives import AnyObjectiveSettings
from uce.training.objectives.base import within
from uce.training.objectives.masked import MaskedSettings


@dataclass(frozen=True)
class DataSettings:
    """Which cells are read, and how a batch is made of them."""

    manifest: str  # CSV with columns dataset, file, species, role
    folder: str  # where the files of the manifest are
    roles: tuple[str, ...] = ("train",)  # of the manifest's rows to use
    leave_out: tuple[str, ...] = ()  # datasets not to use, whatever their role
    gene_encoder: str = "orthogroups-v1"  # kind of gene vectors
    balance: float = 0.5  # a dataset is picked in proportion to its cells to this power
    thinning: float = 0.0  # share of cells whose counts are thinned (20 to 100 % kept) before their sentence is drawn

    def __post_init__(self) -> None:
        within("data.balance", self.balance, 0, 1)
        within("data.thinning", self.thinning, 0, 1)


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW, and its learning rate as a function of the step."""

    lr: float = 3e-4  # highest learning rate
    warmup: int = 500  # steps of linear rise to it; a half cosine falls from there
    final: float = 0.0  # learning rate of the last step, as a share of `lr`
    weight_decay: float = 0.01  # of matrices; vectors (biases, norms) are not decayed
    beta2: float = 0.98  # memory of the squared gradients
    clip: float = 1.0  # longest gradient

    def __post_init__(self) -> None:
        within("optimizer.lr", self.lr, 1e-9, 1)
        within("optimizer.warmup", self.warmup, 0, 1 << 40)
        within("optimizer.final", self.final, 0, 1)
        within("optimizer.weight_decay", self.weight_decay, 0, 1)
        within("optimizer.beta2", self.beta2, 0, 1 - 1e-9)
        within("optimizer.clip", self.clip, 1e-9, 1e9)


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
    batch_size: int = 128  # cells of one update, over all processes; all of one dataset
    draws: int = 1024  # genes drawn per cell in training; `rule` is for embedding
    late_draws: int = 1024  # the same in the last part of a run: short sentences are quick, long ones show detail
    late_from: float = 1.0  # share of the steps before that part; 1: there is none
    rule: SentenceRule = field(default_factory=SentenceRule)
    objective: AnyObjectiveSettings = field(default_factory=MaskedSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    ema: float = 0.0  # memory of the averaged weights that embed; 0: the last ones
    precision: Literal["no", "bf16"] = "no"  # mixed precision of the forward pass
    log_every: int = 50  # steps per line of the log
    snapshot_every: int = 1000  # steps per snapshot
    keep_snapshots: int = 2  # the newest ones that stay
    summary: str = ""  # first sentence of the card
    limits: tuple[str, ...] = ()  # of the card: what the model is not for
    licence: str = ""  # of the weights, for the card

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "draws", "late_draws", "log_every", "snapshot_every", "keep_snapshots"):
            within(name, getattr(self, name), 1, 1 << 40)
        within("seed", self.seed, 0, (1 << 63) - 1)
        within("ema", self.ema, 0, 1 - 1e-9)
        within("late_from", self.late_from, 0, 1)
        self.objective.check(self)

    def draws_at(self, step: int) -> int:
        """Genes drawn per cell in the update number `step`."""
        return self.late_draws if step >= self.late_from * self.steps else self.draws
