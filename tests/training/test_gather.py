"""Two processes have the gradient of one process with the joined batch, the temperature's too."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from uce.config import write_config
from uce.training.corpus import Corpus
from uce.training.loop import Trainee, _tensors
from uce.training.objectives.contrastive import ContrastiveSettings
from uce.training.settings import PretrainConfig

CHILD = textwrap.dedent("""
    import os, sys, torch
    torch.set_num_threads(1)
    from safetensors.torch import load_file, save_file
    from uce.config import read_config
    from uce.training.loop import Trainee
    from uce.training.settings import PretrainConfig
    folder, rank = sys.argv[1], int(sys.argv[2])
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.manual_seed(0)
    trainee = Trainee(read_config(PretrainConfig, f"{folder}/config.yaml")).double()
    wrapped = torch.nn.parallel.DistributedDataParallel(trainee)
    batch = load_file(f"{folder}/batch{rank}.safetensors")
    sums = wrapped(batch)
    trainee.objective.loss(sums, batch).backward()
    found = {name: parameter.grad for name, parameter in trainee.named_parameters()}
    found |= {f"sum.{name}": value.detach() for name, value in sums.items()}
    save_file(found, f"{folder}/out{rank}.safetensors")
    torch.distributed.destroy_process_group()
    # What torch tears down after this, it may abort on while threads of the group still end; all is written.
    os._exit(0)
""")


def test_the_gradient_of_two_processes_is_that_of_one(
    corpus: Corpus, make_config: Callable[..., PretrainConfig], tmp_path: Path
) -> None:
    # In parts of 5 of 32 sentences a process; cells that take no part are not alike in number on both.
    config = make_config(objective=ContrastiveSettings(panel_least=0.1, fewest_genes=20, clip_steps=0, cache_cells=5))
    write_config(config, tmp_path / "config.yaml")
    batches = [_batch(corpus, config)] + [_batch(corpus, config, rank=rank, world=2) for rank in range(2)]
    assert batches[1]["valid"].sum() != batches[2]["valid"].sum()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    children = []
    for rank in range(2):
        save_file(batches[1 + rank], tmp_path / f"batch{rank}.safetensors")
        command = [sys.executable, "-c", CHILD, str(tmp_path), str(rank)]
        children.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    torch.manual_seed(0)
    trainee = Trainee(config).double()
    sums = trainee(batches[0])
    trainee.objective.loss(sums, batches[0]).backward()
    for child in children:
        said = child.communicate(timeout=120)[1]
        assert child.returncode == 0, said[-2000:]
    first, second = (load_file(tmp_path / f"out{rank}.safetensors") for rank in range(2))
    for name, parameter in trainee.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(first[name], parameter.grad, rtol=1e-6, atol=1e-12)
        assert torch.equal(first[name], second[name])
    assert float(trainee.objective.log_scale.grad.abs()) > 1e-4
    for name, value in sums.items():
        torch.testing.assert_close(first[f"sum.{name}"] + second[f"sum.{name}"], value.detach(), rtol=1e-6, atol=1e-9)


def _batch(corpus: Corpus, config: PretrainConfig, *, rank: int = 0, world: int = 1) -> dict[str, torch.Tensor]:
    tensors = _tensors(config.objective.make_batch(corpus, config, 3, rank=rank, world=world), torch.device("cpu"))
    return {
        name: (value.double() if value.is_floating_point() else value).contiguous() for name, value in tensors.items()
    }
