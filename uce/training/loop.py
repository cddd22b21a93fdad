"""The training loop: one function that reads from top to bottom. `pretrain` is all a user calls."""

import json
import logging
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from uce.config import write_config
from uce.errors import UsageError
from uce.files import atomic_path
from uce.genes.tables import table_record
from uce.model.checkpoint import save_model
from uce.model.encoder import Encoder
from uce.training.batch import Batch
from uce.training.corpus import Corpus, read_corpus
from uce.training.optimizer import Average, build_optimizer, learning_rate, set_learning_rate
from uce.training.order import DROPOUT, words
from uce.training.records import check_run, cut_log, describe
from uce.training.settings import PretrainConfig
from uce.training.state import Progress, add_state, newest_snapshot, pack, read_state, rotate, snapshot_path, unpack

if TYPE_CHECKING:
    from accelerate import Accelerator

log = logging.getLogger(__name__)


class Trainee(nn.Module):
    """Encoder and objective as one module, so that one wrapper sees every parameter that is used."""

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config.model)
        self.objective = config.objective.build(config.model)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The sums of the objective, see `Objective.forward`."""
        sums: dict[str, Tensor] = self.objective(self.encoder, batch)
        return sums


@torch.no_grad()
def start_linear(encoder: Encoder, batches: Sequence[Batch]) -> None:
    """Let training start from the centred linear part of the read-out: all else begins at nothing and is learned.

    The cells of a corpus share most of their mean token. Subtracting it (by the constant of the linear map) leaves the
    differences, which the cosine then sees; the decoder's last layer begins at zero, as residual branches often do.
    """
    means = [
        encoder.mean_token(encoder.project(torch.from_numpy(b.vectors))[b.tokens], torch.from_numpy(b.keep)).mean(dim=0)
        for b in batches
    ]
    encoder.mean_map.bias.copy_(-encoder.mean_map.weight @ torch.stack(means).mean(dim=0))
    for parameter in encoder.decoder[-1].parameters():
        parameter.zero_()


def pretrain(config: PretrainConfig, *, out: str | Path) -> Path:
    """Train an encoder, or continue a run that was interrupted.

    Parameters
    ----------
    config
        All that decides the result.
    out
        Folder of the run: `config.yaml`, `log.jsonl` (a line per logged step), `checkpoints/`, and at the end the
        model folder, named `config.name`. Where it holds an unfinished run of the same configuration, that continues
        from its newest snapshot, to the same weights, bit for bit, on one kind of CPU and number of processes.

    Returns
    -------
    The model folder.

    Raises
    ------
    UsageError
        `out` holds a run of another configuration; or the batch cannot be shared among the processes.
    OutputExistsError
        The run in `out` is finished.
    InputError, ModelError
        The cells or gene tables cannot be read, see `read_corpus`.
    """
    from accelerate import Accelerator

    run, target = Path(out), Path(out) / config.name
    check_run(config, run, target)
    accelerator = Accelerator(mixed_precision=config.precision)
    if config.batch_size % accelerator.num_processes:
        msg = f"batch_size = {config.batch_size}: not a multiple of the {accelerator.num_processes} processes."
        raise UsageError(msg)
    corpus = read_corpus(config.data)
    _check_width(config, corpus)
    if accelerator.is_main_process:
        run.mkdir(parents=True, exist_ok=True)
        with atomic_path(run / "config.yaml") as temporary:
            write_config(config, temporary)
    accelerator.wait_for_everyone()
    trainer = _Trainer(config, corpus, accelerator, run)
    trainer.restore()
    for step in trainer.remaining_steps():
        trainer.update(step)
    if accelerator.is_main_process:
        trainer.write_model(target)
    accelerator.wait_for_everyone()
    # What still refers to the processes' group would be torn down with the interpreter, while threads of it run.
    del trainer
    accelerator.free_memory()
    accelerator.end_training()
    return target


class _Trainer:
    """A run in one process: what has to be carried from step to step."""

    def __init__(self, config: PretrainConfig, corpus: Corpus, accelerator: "Accelerator", run: Path) -> None:
        self.config, self.corpus, self.accelerator, self.run = config, corpus, accelerator, run
        torch.manual_seed(config.seed)  # the same first weights in every process
        self.trainee = Trainee(config)
        if config.model.readout == "cls+mean":
            unseen = range(config.steps, config.steps + 16)
            start_linear(self.trainee.encoder, [config.objective.make_batch(corpus, config, step) for step in unseen])
        optimizer = build_optimizer(self.trainee, config.optimizer)
        self.wrapped, self.optimizer = accelerator.prepare(self.trainee, optimizer)
        self.learned = list(self.trainee.encoder.parameters()) + list(self.trainee.objective.parameters())
        self.average = Average(self.trainee.encoder.named_parameters(), memory=config.ema) if config.ema else None
        self.progress = Progress(step=0)
        self.window: dict[str, Tensor] = {}  # sums of the objective since the last line of the log
        self.first_step = 0
        self.started = time.monotonic()

    def restore(self) -> None:
        """Continue from the newest whole snapshot, where there is one."""
        found = newest_snapshot(self.run)
        if found is None:
            cut_log(self.run, step=0)
            return
        folder, self.progress = found
        self.first_step = self.progress.step
        average = self.average.values if self.average else None
        unpack(read_state(folder), self.trainee, self.optimizer.optimizer, average)
        if self.accelerator.is_main_process:
            cut_log(self.run, step=self.first_step)
            log.warning("continuing from %s", folder)

    def remaining_steps(self) -> Iterator[int]:
        """Numbers of the updates still to do, from 0, with a line of progress on the terminal."""
        from tqdm import tqdm

        steps = range(self.first_step, self.config.steps)
        shown = self.accelerator.is_main_process and sys.stderr.isatty()
        yield from tqdm(steps, initial=self.first_step, total=self.config.steps, unit="step", disable=not shown)

    def update(self, step: int) -> None:
        """One update of the weights, and what is due after it: averaging, a line of the log, a snapshot."""
        config, accelerator = self.config, self.accelerator
        rank, world = accelerator.process_index, accelerator.num_processes
        batch = _tensors(
            config.objective.make_batch(self.corpus, config, step, rank=rank, world=world), accelerator.device
        )
        # Dropout is a function of step and process as well, so there is no generator state to save.
        drop_seed = words(config.seed, DROPOUT, np.array([step * world + rank]))
        torch.manual_seed(int(drop_seed[0]) >> 1)
        set_learning_rate(self.optimizer, learning_rate(step, steps=config.steps, settings=config.optimizer))
        self.wrapped.train()
        sums = self.wrapped(batch)
        self.optimizer.zero_grad()
        accelerator.backward(self.trainee.objective.loss(sums, batch))
        accelerator.clip_grad_norm_(self.learned, config.optimizer.clip)
        self.optimizer.step()
        if self.average:
            self.average.update(self.trainee.encoder.named_parameters(), step=step)
        for name, value in sums.items():
            self.window[name] = self.window.get(name, 0) + value.detach().cpu().double()
        self._report(step + 1)

    def _report(self, done: int) -> None:
        config = self.config
        seconds = self.progress.seconds + time.monotonic() - self.started
        last = done == config.steps
        if done % config.log_every == 0 or last:
            self._log(done, seconds)
        if (done % config.snapshot_every == 0 or last) and self.accelerator.is_main_process:
            self._snapshot(Progress(step=done, seconds=seconds))

    def _log(self, done: int, seconds: float) -> None:
        device = self.accelerator.device
        summed = {
            name: self.accelerator.reduce(value.to(device), reduction="sum").cpu()
            for name, value in self.window.items()
        }
        self.window = {}
        if not self.accelerator.is_main_process:
            return
        values = self.trainee.objective.fields(summed, step=done)
        if not math.isfinite(values["loss"]):
            msg = f"step {done}: the loss is {values['loss']}; lower optimizer.lr, or start again from a snapshot."
            raise FloatingPointError(msg)
        for doubt in values.get("suspect", ()):
            log.warning("step %d: suspect: %s", done, doubt)
        rate = (done - self.first_step) * self.config.batch_size / max(time.monotonic() - self.started, 1e-9)
        left = (self.config.steps - done) * self.config.batch_size / rate
        line = {
            "step": done,
            **{name: round(value, 5) if isinstance(value, float) else value for name, value in values.items()},
            "lr": learning_rate(done - 1, steps=self.config.steps, settings=self.config.optimizer),
            "cells_per_second": round(rate, 1),
            "seconds": round(seconds, 1),
            "seconds_left": round(left),
        }
        with (self.run / "log.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        headline = next(iter(values))
        log.info("step %d of %d: %s %.4f, %.0f cells/s, %s left", done, self.config.steps, headline,
                 values[headline], rate, time.strftime("%H:%M:%S", time.gmtime(left)))  # fmt: skip

    def _snapshot(self, progress: Progress) -> None:
        folder = snapshot_path(self.run, progress.step)
        folder.parent.mkdir(exist_ok=True)
        average = self.average.values if self.average else None
        if folder.exists():
            return
        with atomic_path(folder) as temporary:
            self.write_model(temporary, step=progress.step, name=folder.name)
            add_state(temporary, pack(self.trainee, self.optimizer.optimizer, average), progress)
        rotate(self.run, keep=self.config.keep_snapshots)

    def write_model(self, folder: Path, *, step: int | None = None, name: str | None = None) -> None:
        """Write the weights that embed (the averaged ones where there are) as a model folder."""
        config = self.config
        encoder = Encoder(config.model)
        encoder.load_state_dict(self.trainee.encoder.state_dict())
        if self.average:
            with torch.no_grad():
                for key, parameter in encoder.named_parameters():
                    parameter.copy_(self.average.values[key])
        save_model(
            folder,
            encoder=encoder,
            rule=config.rule,
            specials=self.corpus.specials,
            gene_encoder=config.data.gene_encoder,
            gene_tables=[table_record(table) for table in self.corpus.tables],
            info=describe(config, self.corpus, step or config.steps),
            name=name,
        )


def _tensors(batch: Batch, device: torch.device) -> dict[str, Tensor]:
    """The arrays of a batch on the device; arrays that are None are left out."""
    arrays = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {name: torch.as_tensor(array, device=device) for name, array in arrays.items() if array is not None}


def _check_width(config: PretrainConfig, corpus: Corpus) -> None:
    width = corpus.specials.shape[1]
    if config.model.protein_dim != width:
        msg = (
            f"model.protein_dim = {config.model.protein_dim}, but {config.data.gene_encoder} vectors are {width} wide."
        )
        raise UsageError(msg)
