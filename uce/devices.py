"""Which device, which precision, and which share of the work is this process's."""

import logging
import os
import platform
import re
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from uce.errors import UsageError

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "bf16"]
PrecisionChoice = Literal["auto", "fp32", "bf16"]
ProteinPrecision = Literal["fp32", "bf16", "fp16"]

_CPU_FACTS = Path("/proc/cpuinfo")

logger = logging.getLogger("uce")


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


def check_precision(name: str) -> PrecisionChoice:
    """`name`, if it is `auto`, `fp32` or `bf16`. What `auto` means depends on the model, see `choose_precision`.

    Raises
    ------
    UsageError
        Any other name.
    """
    if name in get_args(PrecisionChoice):
        return cast("PrecisionChoice", name)
    msg = f"--precision {name}: not a precision. Use auto, fp32 or bf16."
    raise UsageError(msg)


def pick_protein_precision(name: str, device: "torch.device") -> ProteinPrecision:
    """The precision an ESM2 runs in on `device`, for `auto` (float32), `fp32`, `bf16` or `fp16`.

    A processor without instructions for bf16 is slower with it than without: float32 is taken there, and said.

    Raises
    ------
    UsageError
        Any other name, or fp16 on a processor.
    """
    if name == "auto":
        return "fp32"
    if name not in get_args(ProteinPrecision):
        msg = f"--precision {name}: not a precision. Use auto, fp32, bf16 or fp16."
        raise UsageError(msg)
    if device.type == "cpu" and name == "fp16":
        msg = "--precision fp16: for graphics processors alone. Use bf16 or fp32, or --device cuda."
        raise UsageError(msg)
    if device.type == "cpu" and name == "bf16" and not computes_bf16():
        logger.warning("--precision bf16: this processor has no instructions for it; float32 is used.")
        return "fp32"
    return cast("ProteinPrecision", name)


def computes_bf16() -> bool:
    """Whether this machine's processor says that it multiplies matrices of bf16: AVX-512 or AMX of x86, BF16 of ARM."""
    try:
        facts = _CPU_FACTS.read_text(encoding="utf-8", errors="replace")
    except OSError:  # no such file on this system
        return False
    return re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", facts) is not None


def processor_name() -> str:
    """What the processor calls itself, such as "AMD EPYC 9B45"; the kind of machine where it does not say."""
    try:
        facts = _CPU_FACTS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        facts = ""
    found = re.search(r"^model name\s*:\s*(.+)$", facts, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def memory_bytes(device: "torch.device") -> int:
    """What a device has: the free memory of a graphics processor of its own, else all memory of the machine."""
    import torch

    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def arithmetic(device: "torch.device", precision: ProteinPrecision) -> AbstractContextManager[Any]:
    """A context in which matrix products run in `precision`; norms and sums stay in float32."""
    import torch

    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
    return torch.autocast(device.type, dtype=kinds[precision]) if precision in kinds else nullcontext()


def can_compile(device: "torch.device", *, asked: str) -> bool:
    """Whether torch can compile for `device`, for which it needs a C++ compiler; a warning says where it cannot.

    Should compilation fail later nevertheless, what was to be compiled runs as it is.
    """
    import torch

    from uce.files import printable

    try:
        torch.compile(_one_more)(torch.ones(2, device=device))
    except Exception as error:  # of torch's many parts, each with exceptions of its own
        why = printable(str(error).strip().split("\n", maxsplit=1)[0], limit=200)
        logger.warning("%s: torch cannot compile here (%s); going on without.", asked, why)
        return False
    torch._dynamo.config.suppress_errors = True
    return True


def _one_more(x: "torch.Tensor") -> "torch.Tensor":
    return x + 1


def exact_type(device: "torch.device") -> "torch.dtype":
    """The most exact numbers a device adds up in: float64, but float32 on Apple's GPUs, which know no other."""
    import torch

    return torch.float32 if device.type == "mps" else torch.float64


def rank_and_world() -> tuple[int, int]:
    """Rank of this process and the number of processes, as torchrun and `accelerate launch` announce them.

    Embedding shares nothing between ranks but a folder, so no process group is opened.
    """
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
