"""Which device, which precision, and which share of the work is this process's."""

import os
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from uce.errors import UsageError

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "bf16"]


def pick_device(name: str) -> "torch.device":
    """The torch device for `auto`, `cpu`, `cuda` or `mps`; `auto` takes the first of cuda, mps and cpu that is there.

    Under a launcher with several processes a machine, `cuda` is the device of this process's local rank.

    Raises
    ------
    UsageError
        The device asked for is unknown or not there: there is no silent way back to the CPU.
    """
    import torch

    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, there in present.items() if there)
    if name not in present:
        msg = f"--device {name}: not a device. Use auto, cpu, cuda or mps."
        raise UsageError(msg)
    if not present[name]:
        msg = f"--device {name}: this machine offers none. Use --device cpu, or auto to take what is there."
        raise UsageError(msg)
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if name == "cuda" else torch.device(name)


def pick_precision(name: str) -> Precision:
    """The precision for `auto`, `fp32` or `bf16`. `auto` is float32, in which equal cells get equal vectors.

    Raises
    ------
    UsageError
        Any other name.
    """
    if name == "auto":
        return "fp32"
    if name in get_args(Precision):
        return cast("Precision", name)
    msg = f"--precision {name}: not a precision. Use auto, fp32 or bf16."
    raise UsageError(msg)


def arithmetic(device: "torch.device", precision: Precision) -> AbstractContextManager[Any]:
    """A context in which matrix products run in `precision`; norms and sums stay in float32."""
    import torch

    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()


def rank_and_world() -> tuple[int, int]:
    """Rank of this process and the number of processes, as torchrun and `accelerate launch` announce them.

    Embedding shares nothing between ranks but a folder, so no process group is opened.
    """
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
