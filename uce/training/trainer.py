"""A run in one process, update by update; it reads from top to bottom in `Trainer.train` and `Trainer.update`."""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uce.devices import exact_type
from uce.files import atomic_path
from uce.progress import Progress as Bar
from uce.training.batch import Batch, to_tensors, token_tables
from uce.training.corpus import Corpus
from uce.training.costs import peak_flops, training_flops_per_token
from uce.training.curves import draw_curves
from uce.training.guard import SUSPECTS, Guard, cut_suspects, suspect_record, write_suspects
from uce.training.loader import made_ahead
from uce.training.optimizer import Anchor, Average, build_optimizer, learning_rate, set_learning_rate
from uce.training.order import DROPOUT, words
from uce.training.packing import pack, unpack, write_model
from uce.training.records import Metrics
from uce.training.recursion import Reading, change_fields
from uce.training.settings import PretrainConfig
from uce.training.start import Start
from uce.training.state import Progress, add_state, read_state, rotate, seal, set_aside, snapshot_path
from uce.training.stopping import Stopping
from uce.training.stream import Cells, Stream
from uce.training.throughput import Throughput
from uce.training.tracking import start_trackers
from uce.training.trainee import Trainee, clip, exchanging, let_go, spread, start_linear
from uce.training.validation import open_validation

if TYPE_CHECKING:
    from accelerate import Accelerator

log = logging.getLogger(__name__)

_SECONDS_OF_A_PICTURE = 60.0  # from one to the next
_WINDOW = "window."  # in a snapshot: sums since the last line of the log


class Trainer:
    """A run in one process: what has to be carried from step to step."""

    def __init__(
        self,
        config: PretrainConfig,
        corpus: Corpus,
        accelerator: "Accelerator",
        run: Path,
        found: tuple[Path, Progress] | None,
        *,
        start: Start | None,
    ) -> None:
        self.config, self.corpus, self.accelerator, self.run, self.start = config, corpus, accelerator, run, start
        self.rank, self.world = accelerator.process_index, accelerator.num_processes
        self.stream = Stream(corpus, config)
        self.validation = open_validation(config, corpus)
        seen = [corpus, self.validation.corpus] if self.validation else [corpus]
        self.tables = token_tables(seen, accelerator.device)
        torch.manual_seed(config.seed)  # the same first weights in every process
        self.trainee = Trainee(config, start)
        if config.model.readout == "cls+mean" and not (found or start):
            unseen = range(config.parts, config.parts + 16)
            # Whole parts and not this process's share: all processes begin alike.
            batches = (config.objective.make_batch(self.stream.cells(part), config, part) for part in unseen)
            start_linear(self.trainee.encoder, batches, token_tables([corpus], torch.device("cpu")))
        self.wrapped = spread(self.trainee, accelerator, config.run)
        strength = config.optimizer.anchor
        # Also of a run that goes on, whose own weights come below.
        self.anchor = Anchor(self.trainee.encoder, start.parameters, strength=strength) if start else None
        self.optimizer = build_optimizer(self.trainee, config.optimizer)
        baselines = self.trainee.objective.baselines()
        # Lists: in a set the order, and with it the rounding of a length, would be another in every process.
        compared = set(baselines)
        self.clipped = [[p for p in self.trainee.parameters() if p not in compared], baselines]
        self.average = Average(self.trainee.encoder.named_parameters(), memory=config.ema) if config.ema else None
        self.window: dict[str, Tensor] = {}
        self.exact = exact_type(accelerator.device)
        self.progress = Progress(step=0)
        if found:
            self._restore(*found)
        self.guard = Guard()
        self.norm = 0.0
        self.reading = Reading(self.trainee.encoder.recursion)
        peak = peak_flops(accelerator.device, config.precision)
        flops = training_flops_per_token(config, corpus, world=self.world)
        self.throughput = Throughput(flops, peak * self.world if peak else None)
        self.started = self.drawn = time.monotonic()
        self.metrics: Metrics | None = None
        start_trackers(accelerator, config, run, step=self.progress.step)
        if accelerator.is_main_process:
            self.metrics = Metrics(run, accelerator.log if config.run.trackers else None)
            self.metrics.cut(self.progress.step)
            cut_suspects(run, self.progress.step)
            set_aside(run, after=self.progress.step)

    def _restore(self, folder: Path, progress: Progress) -> None:
        tensors = read_state(folder)
        for name in [name for name in tensors if name.startswith(_WINDOW)]:
            value = tensors.pop(name).to(self.accelerator.device)
            # They are the sums of all processes, which are added up again.
            self.window[name.removeprefix(_WINDOW)] = value if self.rank == 0 else torch.zeros_like(value)
        unpack(tensors, self.trainee, self.optimizer, self.average.values if self.average else None)
        self.progress = progress
        if self.accelerator.is_main_process:
            log.warning("continuing from %s", folder)
            if progress.world != self.world:
                note = "the same cells come in the same order, but sums round otherwise"
                log.warning("%d process(es) now, %d before: %s.", self.world, progress.world, note)

    def _make(self, part: int) -> tuple[Cells, Batch]:
        """All cells of a part, and this process's share as a batch."""
        cells = self.stream.cells(part)
        return cells, self.config.objective.make_batch(cells, self.config, part, rank=self.rank, world=self.world)

    def train(self, stopping: Stopping) -> bool:
        """All updates that are left; true where a signal ended them early."""
        config, first = self.config, self.progress.step
        supervision = config.recursion.supervision
        parts = range(first // supervision * config.accumulate, config.parts)
        quiet = not self.accelerator.is_main_process
        with (
            closing(made_ahead(self._make, parts, workers=config.run.workers)) as batches,
            Bar("training", config.steps, unit="steps", initial=first, quiet=quiet) as bar,
        ):
            for step in range(first, config.steps):
                done = step + 1
                # In the middle of a batch there is a state that no snapshot has.
                stopped = self.update(step, batches, stopping) and done % supervision == 0
                bar.advance(1)
                last = stopped or done == config.steps
                checked = self.validation is not None and done % config.validation.every == 0
                if done % config.run.log_every == 0 or checked or done == config.steps:
                    bar.note(self._log(done, checked=checked))
                if done % config.run.snapshot_every == 0 or last:
                    with self.throughput.paused():
                        self._snapshot(done)
                if stopped:
                    return done < config.steps
        return False

    def update(self, step: int, batches: Iterator[tuple[Cells, Batch]], stopping: Stopping) -> bool:
        """One update of the weights; true where a process was asked to stop."""
        config, device = self.config, self.accelerator.device
        set_learning_rate(self.optimizer, learning_rate(step, steps=config.steps, settings=config.optimizer))
        self.wrapped.train()
        loss, waited = torch.zeros((), device=device), 0.0
        shown, tokens, places = [], 0, 0
        added: dict[str, Tensor] = {}
        for number in range(config.accumulate):
            asked = time.perf_counter()
            cells, batch = self.reading.part(step, number, batches)
            waited += time.perf_counter() - asked
            # Dropout is a function of part and process as well, so there is no generator state to save.
            drop = words(config.seed, DROPOUT, np.array([(step * config.accumulate + number) * self.world + self.rank]))
            torch.manual_seed(int(drop[0]) >> 1)
            tensors = to_tensors(batch, self.tables, device)
            with exchanging(self.wrapped, gradients=number + 1 == config.accumulate):
                with self.accelerator.autocast():
                    sums = self.wrapped(tensors)
                part_loss = self.trainee.objective.loss(sums, tensors) / config.accumulate
                part_loss.backward()  # type: ignore[no-untyped-call]
            loss += part_loss.detach()
            self.reading.keep(number)
            for name, value in sums.items():
                added[name] = added.get(name, 0) + value.detach().to(self.exact)
            shown.append((cells.dataset.name, cells.rows))
            tokens, places = tokens + int(batch.keep.sum()), places + batch.keep.size
        norms = [clip(parameters, config.optimizer.clip) for parameters in self.clipped]
        self.norm = norms[0] if math.isfinite(sum(norms)) else math.nan
        facts = torch.tensor([float(loss) / self.world, tokens, places, stopping.requested is not None], device=device)
        mean_loss, all_tokens, all_places, stop = self.accelerator.reduce(facts, reduction="sum").tolist()
        self.throughput.add(cells=config.batch_size, tokens=all_tokens, places=all_places, waited=waited)
        if self._sound(step, shown, mean_loss):
            self.window |= {name: self.window.get(name, 0) + value for name, value in added.items()}
            self.optimizer.step()
            self.trainee.objective.constrain()
            if self.anchor:
                self.anchor.pull(self.optimizer.param_groups[0]["lr"])
            if self.average:
                self.average.update(self.trainee.encoder.named_parameters(), step=step)
        self.optimizer.zero_grad()
        return bool(stop)

    def _sound(self, step: int, shown: list[tuple[str, NDArray[np.int64]]], loss: float) -> bool:
        """Whether an update may be made; what looks wrong is written down with its cells. The same on all processes."""
        verdict = self.guard.judge(loss, self.norm)
        if verdict != "sound" and self.accelerator.is_main_process:
            parts = enumerate(shown, step // self.config.recursion.supervision * self.config.accumulate)
            records = [
                suspect_record(*cells, step=step + 1, part=part, why=verdict, loss=loss, norm=self.norm)
                for part, cells in parts
            ]
            write_suspects(self.run, records)
            log.warning("step %d: %s (loss %.4g, gradient %.4g): %s", step + 1, verdict, loss, self.norm, SUSPECTS)
        datasets = sorted({name for name, _ in shown})
        self.guard.check(
            step + 1, datasets, learning_rate(step, steps=self.config.steps, settings=self.config.optimizer)
        )
        return verdict != "left out"

    def _log(self, done: int, *, checked: bool) -> str:
        """Write a line of the log; returns its headline."""
        config = self.config
        summed = self._summed_window()
        self.window = {}
        checks = self._validate() if checked else {}
        drift = {"drift": self.anchor.drift()} if self.anchor else {}
        if self.metrics is None:
            return ""
        values = self.trainee.objective.fields(summed, step=done) if summed else {}
        values |= change_fields(summed, values.get("suspect", []))
        for doubt in values.get("suspect", ()):
            log.warning("step %d: suspect: %s", done, doubt)
        rates = self.throughput.line()
        line = {
            "step": done,
            **values,
            **checks,
            **drift,
            "lr": learning_rate(done - 1, steps=config.steps, settings=config.optimizer),
            "grad_norm": self.norm,
            **rates,
            "seconds": self._seconds(),
            "seconds_left": (config.steps - done) * config.batch_size / max(rates["cells_per_second"], 1e-9),
        }
        self.metrics.write(line)
        headline = next(iter(values), None)
        shown = [f"{headline} {values[headline]:.4f}"] if headline else []
        shown += [f"{rates['cells_per_second']:,.0f} cells/s", f"{rates['tokens_per_second']:,.0f} tokens/s"]
        return ", ".join(shown + ([f"MFU {rates['mfu']:.0%}"] if "mfu" in rates else []))

    def _summed_window(self) -> dict[str, Tensor]:
        """The sums since the last line over all processes, on the CPU."""
        return {name: self.accelerator.reduce(value, reduction="sum").cpu() for name, value in self.window.items()}

    def _seconds(self) -> float:
        return self.progress.seconds + time.monotonic() - self.started

    def _validate(self) -> dict[str, Any]:
        assert self.validation is not None
        self.wrapped.eval()
        with self.throughput.paused(), self._averaged(), torch.no_grad(), self.accelerator.autocast():
            measured = self.validation.measure(self.wrapped, self.trainee.objective, self.accelerator, self.tables)
            let_go(self.wrapped)
        return measured

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """A context in which the encoder has the weights that embed."""
        if self.average is None:
            yield
            return
        named = dict(self.trainee.encoder.named_parameters())
        last = {name: parameter.detach().clone() for name, parameter in named.items()}
        with torch.no_grad():
            for name, parameter in named.items():
                parameter.copy_(self.average.values[name])
            try:
                yield
            finally:
                for name, parameter in named.items():
                    parameter.copy_(last[name])

    def _snapshot(self, done: int) -> None:
        """Write all that continues the run after `done` updates. Every process has a share in it."""
        config, main = self.config, self.accelerator.is_main_process
        window = {_WINDOW + name: value for name, value in self._summed_window().items()}
        average = self.average.values if self.average else None
        tensors = pack(self.trainee, self.optimizer, average, keep=main) | window
        folder = snapshot_path(self.run, done)
        if not main or folder.exists():
            return
        progress = replace(
            self.progress,
            step=done,
            seconds=self._seconds(),
            corpus=self.corpus.sha256,
            world=self.world,
            start=self.start.sha256 if self.start else "",
        )
        folder.parent.mkdir(exist_ok=True)
        with atomic_path(folder) as temporary:
            write_model(temporary, tensors, config, self.corpus, step=done, name=folder.name, start=self.start)
            add_state(temporary, tensors, progress)
            seal(temporary)
        rotate(self.run, keep=config.run.keep_snapshots, keep_every=config.run.keep_every, whole=folder)
        if time.monotonic() - self.drawn > _SECONDS_OF_A_PICTURE or done == config.steps:
            draw_curves(self.run)
            self.drawn = time.monotonic()
