"""Training from a configuration to a model folder: `pretrain` is all a user calls."""

import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from uce.config import write_config
from uce.errors import OutputExistsError, UsageError
from uce.files import atomic_path, make_folder
from uce.locks import lock
from uce.progress import say
from uce.training.corpus import Corpus, open_corpus
from uce.training.costs import check_fits, check_width
from uce.training.packing import write_model
from uce.training.records import check_run
from uce.training.settings import PretrainConfig
from uce.training.start import open_start
from uce.training.state import Progress, newest_snapshot, read_state, snapshot_path
from uce.training.stopping import Stopping
from uce.training.tracking import check_trackers, tracker_settings
from uce.training.trained_on import note_corpus, write_manifest
from uce.training.trainer import Trainer

if TYPE_CHECKING:
    from accelerate import Accelerator


def pretrain(
    config: PretrainConfig,
    *,
    out: str | Path,
    resume: Literal["auto", "never"] | int = "auto",
    processes: int | None = None,
    allow_corpus_change: bool = False,
) -> Path:
    """Train an encoder, or continue a run that was interrupted.

    SIGTERM, SIGUSR1 and Ctrl-C end a run after the update at hand, with a snapshot.

    Parameters
    ----------
    config
        All that decides the result.
    out
        Folder of the run: `config.yaml`, `metrics.jsonl` (a line per logged step), `curves.png`, `checkpoints/`, and at
        the end the model folder, named `config.name`.
    resume
        "auto": where `out` holds an unfinished run of the same configuration, that continues from its newest whole
        snapshot, to the same weights, bit for bit, on one kind of CPU and number of processes. A number: from the
        snapshot after so many updates; later ones are set aside. "never": an unfinished run is refused.
    processes
        How many there must be. A launcher that was misled starts fewer and says nothing.
    allow_corpus_change
        Continue although the corpus is another one now.

    Returns
    -------
    The model folder.

    Raises
    ------
    UsageError
        `out` holds a run of another configuration or corpus; the batch cannot be shared among the processes; the
        configuration cannot fit the device; three updates in a row were not finite.
    OutputExistsError
        The run in `out` is finished, or unfinished and not to be resumed.
    InputError, ModelError
        The corpus, the gene tables or the model to start from cannot be read, see `open_corpus` and `open_start`.
    StorageError
        A snapshot cannot be written. Those before it are whole.
    KeyboardInterrupt
        A signal ended the run; the same call continues it.
    """
    from accelerate import Accelerator

    # Of a CPU's kernels in bfloat16, which are made for each shape of a batch; by default 1,024 stay, some gigabytes.
    for cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(cache, "64")
    run, target = Path(out), Path(out) / config.name
    check_run(config, run, target)
    check_trackers(config.run.trackers)
    accelerator = Accelerator(mixed_precision=config.precision, **tracker_settings(config, run))
    _check_processes(config, accelerator.num_processes, processes)
    corpus = open_corpus(config.data)
    check_width(config, corpus)
    check_fits(config, corpus, accelerator.device, accelerator.num_processes)
    main = accelerator.is_main_process
    if main:
        make_folder(run)
    try:
        with lock(run / ".lock", wait=False, elsewhere=False) if main else nullcontext(), Stopping() as stopping:
            found = _find_snapshot(run, resume, corpus, accelerator, allow_corpus_change=allow_corpus_change)
            start = open_start(config, corpus, found[1] if found else None)
            trainer = Trainer(config, corpus, accelerator, run, found, start=start)
            if main:
                with atomic_path(run / "config.yaml") as temporary:
                    write_config(config, temporary)
                note_corpus(run, found[1].corpus if found else corpus.sha256, corpus)
                shared = f", {config.run.sharding}" if accelerator.num_processes > 1 else ""
                say(f"{run}: {accelerator.num_processes} process(es) on {accelerator.device.type}{shared}")
            stopped = trainer.train(stopping)
            if not stopped and main:
                last = read_state(snapshot_path(run, config.steps))
                write_model(target, last, config, corpus, step=config.steps, start=start)
        accelerator.wait_for_everyone()
        # What still refers to the processes' group would be torn down with the interpreter, while threads of it run.
        del trainer
        accelerator.free_memory()
    finally:
        accelerator.end_training()
    if stopped:
        raise KeyboardInterrupt
    if main:  # no other process waits for it any more
        write_manifest(target, corpus, run, start)
    return target


def _check_processes(config: PretrainConfig, world: int, expected: int | None) -> None:
    if expected is not None and world != expected:
        msg = f"{world} process(es), {expected} were expected. On CPUs start them with torchrun --nproc_per_node."
        raise UsageError(msg)
    if config.part_size % world:
        each = f"batch_size / accumulate = {config.part_size}"
        msg = f"{each}: not a multiple of the {world} processes that share these cells."
        raise UsageError(msg)


def _find_snapshot(
    run: Path, resume: str | int, corpus: Corpus, accelerator: "Accelerator", *, allow_corpus_change: bool
) -> tuple[Path, Progress] | None:
    """What all processes continue from; one of them looks."""
    from accelerate.utils import broadcast_object_list

    if resume == "never" and (run / "config.yaml").is_file():
        msg = f"{run}: holds an unfinished run. Choose another --output, or leave --resume out to continue it."
        raise OutputExistsError(msg)
    box: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            box[0] = newest_snapshot(run, step=resume if isinstance(resume, int) else None)
        except UsageError as error:
            box[1] = str(error)  # the others would wait for ever
    box = broadcast_object_list(box)
    if box[1]:
        raise UsageError(box[1])
    found: tuple[Path, Progress] | None = box[0]
    if found and found[1].corpus != corpus.sha256 and not allow_corpus_change:
        msg = (
            f"{run}: was trained on corpus {found[1].corpus[:12]}.., this one is {corpus.sha256[:12]}... "
            "Give that one as data.corpus, or --allow-corpus-change to go on with other cells."
        )
        raise UsageError(msg)
    return found
