"""What a run packs is whole whoever shares it, and comes back bit for bit. As a script, this is one of two ranks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from uce.errors import ModelError
from uce.training.optimizer import Average, build_optimizer
from uce.training.packing import pack, unpack
from uce.training.settings import OptimizerSettings


class Toy:
    """A module whose rows two processes cannot share evenly, its optimizer and its averaged weights."""

    def __init__(self, *, seed: int, sharing: str = "none") -> None:
        torch.manual_seed(seed)
        self.module: nn.Module = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7, momentum=None), nn.Linear(7, 1))
        if sharing == "fsdp":
            from torch.distributed.fsdp import fully_shard

            fully_shard(self.module[0])  # type: ignore[index]
            fully_shard(self.module)
        self.optimizer = build_optimizer(self.module, OptimizerSettings())
        for group in self.optimizer.param_groups:
            group["eps"] = 1e-3  # a gradient that is nothing but rounding, as of the first bias, moves nothing
        self.average = Average(self.module.named_parameters(), memory=0.9)
        self.bare = self.module
        if sharing == "ddp":
            self.module = nn.parallel.DistributedDataParallel(self.module)

    def learn(self, steps: range) -> None:
        for step in steps:
            self.optimizer.zero_grad()
            cells = torch.randn(8, 5, generator=torch.Generator().manual_seed(step))
            self.module(cells).square().mean().backward()
            self.optimizer.step()
            self.average.update(self.bare.named_parameters(), step=step)

    def pack(self, *, keep: bool = True) -> dict[str, Tensor]:
        return pack(self.module, self.optimizer, self.average.values, keep=keep)

    def unpack(self, tensors: dict[str, Tensor]) -> None:
        unpack(tensors, self.module, self.optimizer, self.average.values)


def _assert_equal(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert tensor.dtype == two[name].dtype
        assert torch.equal(tensor, two[name]), name


def test_a_run_goes_on_from_what_it_packed_bit_for_bit(tmp_path: Path) -> None:
    first, second = Toy(seed=0), Toy(seed=1)
    first.learn(range(3))
    packed = first.pack()
    save_file(packed, tmp_path / "state.safetensors")
    second.unpack(load_file(tmp_path / "state.safetensors"))
    _assert_equal(second.pack(), packed)
    first.learn(range(3, 6))
    assert not torch.equal(packed["weights.0.weight"], first.pack()["weights.0.weight"])  # a copy
    second.learn(range(3, 6))
    _assert_equal(first.pack(), second.pack())


def test_everything_is_packed_under_its_name() -> None:
    toy = Toy(seed=0)
    assert {name.split(".")[0] for name in toy.pack()} == {"weights", "average"}
    toy.learn(range(2))
    packed = toy.pack()
    parameters = [name for name, _ in toy.module.named_parameters()]
    moments = {f"optimizer.{name}.{key}" for name in parameters for key in ("step", "exp_avg", "exp_avg_sq")}
    weights = {f"weights.{name}" for name in toy.module.state_dict()}
    assert set(packed) == moments | weights | {f"average.{name}" for name in parameters}
    assert float(packed["optimizer.0.weight.step"]) == 2
    assert toy.pack(keep=False) == {}


def test_the_tensors_of_another_model_are_refused() -> None:
    toy = Toy(seed=0)
    packed = toy.pack()
    before = {name: tensor.clone() for name, tensor in packed.items()}
    wide = packed | {"weights.0.bias": torch.zeros(1)}  # would fill all seven
    with pytest.raises(ModelError, match=r"^The snapshot holds another model: weights\.0\.bias\. Start"):
        toy.unpack(wide)
    with pytest.raises(ModelError, match=r"average\.9, weights\.9"):
        toy.unpack(packed | {"weights.9": torch.zeros(1), "average.9": torch.zeros(1)})
    with pytest.raises(ModelError, match=r"average\.0\.bias"):
        toy.unpack({name: tensor for name, tensor in packed.items() if name != "average.0.bias"})
    _assert_equal(toy.pack(), before)


def test_two_processes_that_share_a_model_pack_and_unpack_the_whole(tmp_path: Path) -> None:
    alone = Toy(seed=0)
    alone.learn(range(3))
    save_file(alone.pack(), tmp_path / "in.safetensors")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, __file__, str(tmp_path)]
    children = [
        subprocess.Popen([*command, str(rank)], env=environment, stderr=subprocess.PIPE, text=True) for rank in range(2)
    ]
    for child in children:
        said = child.communicate(timeout=300)[1]
        assert child.returncode == 0, said[-2000:]
    packed = alone.pack()
    alone.learn(range(3, 6))
    for sharing in ("ddp", "fsdp"):
        _assert_equal(load_file(tmp_path / f"{sharing}-same.safetensors"), packed)
        later = load_file(tmp_path / f"{sharing}-later.safetensors")
        for name, tensor in alone.pack().items():
            torch.testing.assert_close(later[name], tensor, rtol=1e-5, atol=1e-7)


def _rank(folder: Path, rank: int) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    for sharing in ("ddp", "fsdp"):
        toy = Toy(seed=1, sharing=sharing)
        toy.unpack(load_file(folder / "in.safetensors"))
        for name in ("same", "later"):
            packed = toy.pack(keep=rank == 0)
            assert bool(packed) == (rank == 0)
            if packed:
                save_file(packed, folder / f"{sharing}-{name}.safetensors")
            toy.learn(range(3, 6))
    torch.distributed.destroy_process_group()
    # What torch tears down after this, it may abort on while threads of the group still end; all is written.
    os._exit(0)


if __name__ == "__main__":
    _rank(Path(sys.argv[1]), int(sys.argv[2]))
