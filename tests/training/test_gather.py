"""Two processes that share an update of two parts have the gradient of one process, the temperature's too."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from itertools import product
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from uce.config import write_config
from uce.training.corpus import Corpus
from uce.training.objectives.base import ObjectiveSettings
from uce.training.objectives.contrastive import ContrastiveSettings
from uce.training.objectives.masked import MaskedSettings
from uce.training.settings import PretrainConfig
from uce.training.trainee import Trainee

from .conftest import tensors_of

OBJECTIVES: dict[str, ObjectiveSettings] = {
    # 5 of 16 sentences of a process at once.
    "contrastive": ContrastiveSettings(panel_least=0.1, fewest_genes=8, clip_steps=0, cache_cells=5),
    "masked": MaskedSettings(queries=64, hidden=(32, 16), dropout=0.0, offset="dataset"),
    "tied": MaskedSettings(queries=64, masking="panel", head="tied", mask_fraction=0.5),
}
STEP = 2  # its parts are of different datasets
CHILD = textwrap.dedent("""
    import os, sys, torch
    torch.set_num_threads(1)
    from safetensors.torch import load_file, save_file
    from uce.config import read_config
    from uce.training.settings import PretrainConfig
    from uce.training.trainee import Trainee, exchanging
    folder, rank, names = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    for name in names:
        torch.manual_seed(0)
        trainee = Trainee(read_config(PretrainConfig, f"{folder}/{name}.yaml")).double()
        wrapped = torch.nn.parallel.DistributedDataParallel(trainee)
        found = {}
        for part in range(2):
            batch = load_file(f"{folder}/{name}{part}{rank}.safetensors")
            with exchanging(wrapped, gradients=part == 1):
                sums = wrapped(batch)
                (trainee.objective.loss(sums, batch) / 2).backward()
            found |= {f"sum{part}.{key}": value.detach() for key, value in sums.items()}
        found |= {key: parameter.grad for key, parameter in trainee.named_parameters()}
        save_file(found, f"{folder}/{name}{rank}.out")
    torch.distributed.destroy_process_group()
    # What torch tears down after this, it may abort on while threads of the group still end; all is written.
    os._exit(0)
""")


def test_the_gradient_of_two_processes_and_two_parts_is_that_of_one(
    corpus: Corpus, make_config: Callable[..., PretrainConfig], tmp_path: Path
) -> None:
    configs = {name: make_config(objective=objective, accumulate=2) for name, objective in OBJECTIVES.items()}
    for name, config in configs.items():
        write_config(config, tmp_path / f"{name}.yaml")
        for part, rank in product(range(2), range(2)):
            share = _tensors(corpus, config, 2 * STEP + part, rank=rank, world=2)
            save_file(share, tmp_path / f"{name}{part}{rank}.safetensors")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path), str(rank), *OBJECTIVES],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    expected = {name: _one_process(corpus, config) for name, config in configs.items()}
    for child in children:
        said = child.communicate(timeout=300)[1]
        assert child.returncode == 0, said[-2000:]
    for name, (gradients, sums) in expected.items():
        first, second = (load_file(tmp_path / f"{name}{rank}.out") for rank in range(2))
        for key, gradient in gradients.items():
            torch.testing.assert_close(first[key], gradient, rtol=1e-6, atol=1e-12, msg=lambda m, k=key: f"{k}: {m}")
            assert torch.equal(first[key], second[key])
        for key, value in sums.items():
            torch.testing.assert_close(first[key] + second[key], value, rtol=1e-6, atol=1e-9)
        assert all(float(sums[f"sum{part}.loss"]) > 1 for part in range(2))
    # Cells that take no part are not alike in number, and the temperature is among what is compared.
    first, second = (load_file(tmp_path / f"contrastive{rank}.out") for rank in range(2))
    assert first["sum0.views"] != second["sum0.views"]
    assert float(first["objective.log_scale"].abs()) > 1e-4


def _one_process(corpus: Corpus, config: PretrainConfig) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The gradients of the mean of both parts' losses, by one backward pass, and the sums of each part."""
    torch.manual_seed(0)
    trainee = Trainee(config).double()
    batches = [_tensors(corpus, config, 2 * STEP + part) for part in range(2)]
    every = [trainee(batch) for batch in batches]
    losses = [trainee.objective.loss(sums, batch) for sums, batch in zip(every, batches, strict=True)]
    torch.stack(losses).mean().backward()
    gradients = {name: parameter.grad for name, parameter in trainee.named_parameters() if parameter.grad is not None}
    assert len(gradients) == len(list(trainee.parameters()))
    found = {f"sum{part}.{name}": value.detach() for part, sums in enumerate(every) for name, value in sums.items()}
    return gradients, found


def _tensors(
    corpus: Corpus, config: PretrainConfig, part: int, *, rank: int = 0, world: int = 1
) -> dict[str, torch.Tensor]:
    tensors = tensors_of(corpus, config, part, rank=rank, world=world)
    return {
        name: (value.double() if value.is_floating_point() else value).contiguous() for name, value in tensors.items()
    }
