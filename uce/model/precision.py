"""What `--precision auto` means for a model on this machine."""

import contextlib
import json
import time
from pathlib import Path
from typing import cast

import torch

from uce.devices import Precision, PrecisionChoice, computes_bf16, processor_name
from uce.errors import StorageError
from uce.files import user_folder, write_json
from uce.model.blocks import Block
from uce.model.encoder import Encoder
from uce.model.inference import exchanged

LARGE = 10_000_000  # weights in the blocks; below, the encoder is not where an embedding's time goes
WORTH = 1.3  # how much faster bfloat16 must be
_TOKENS = 1075  # of a usual sentence
_SECONDS = 1.0


def choose_precision(asked: PrecisionChoice, encoder: Encoder, device: torch.device) -> Precision:
    """The precision for `asked`; `auto` is bfloat16 for a large model where that is faster, else float32.

    Whether a processor is faster is measured once, for about a second, and kept in `processors.json` in the user's
    folder, so that a run that goes on later, and every other run, chooses the same. A graphics processor is asked.
    """
    if asked != "auto":
        return asked
    if sum(weight.numel() for weight in encoder.blocks.parameters()) < LARGE:
        return "fp32"
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and computes_bf16() and bf16_gain(encoder) >= WORTH else "fp32"


def bf16_gain(encoder: Encoder) -> float:
    """How many times as fast a block of `encoder` is in bfloat16 as in float32, on this processor."""
    config = encoder.config
    place = user_folder() / "processors.json"
    key = f"{processor_name()}, torch {torch.__version__}, {config.dim} wide"
    known = _read(place)
    if key not in known:
        known[key] = _measure(cast("Block", encoder.blocks[0]))
        _keep(place, known)
    return known[key]


def _measure(block: Block) -> float:
    """On one thread, whose own time does not count what else the machine does; in turns, and the quickest of each."""
    cpu = torch.device("cpu")
    x = torch.zeros(1, _TOKENS, block.expand.in_features)
    ways = {precision: exchanged(block, cpu, precision) for precision in ("fp32", "bf16")}
    best = dict.fromkeys(ways, float("inf"))
    threads, end = torch.get_num_threads(), time.perf_counter() + _SECONDS
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            for way in ways.values():
                way(x)
            while time.perf_counter() < end or best["bf16"] == float("inf"):
                for precision, way in ways.items():
                    began = time.thread_time()
                    way(x)
                    best[precision] = min(best[precision], time.thread_time() - began)
    finally:
        torch.set_num_threads(threads)
    return round(best["fp32"] / best["bf16"], 2)


def _read(place: Path) -> dict[str, float]:
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
        return {str(key): float(gain) for key, gain in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):  # there is none, or not one of ours: measure again
        return {}


def _keep(place: Path, known: dict[str, float]) -> None:
    # Where the folder cannot be written, the next run measures again.
    with contextlib.suppress(OSError, StorageError):
        place.parent.mkdir(parents=True, exist_ok=True)
        write_json(place, known)
