"""Counting without computing gives what computing takes: operations exactly, memory as the allocator hands it out."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from uce.model.encoder import ModelConfig
from uce.training.batch import Batch, to_tensors, token_tables
from uce.training.corpus import Corpus
from uce.training.costs import sample_batches
from uce.training.counting import FLOP_COUNTS, count_bytes, count_flops, most_bytes, parameters
from uce.training.objectives.contrastive import ContrastiveSettings
from uce.training.objectives.masked import MaskedSettings
from uce.training.settings import PretrainConfig, RunSettings
from uce.training.trainee import Trainee

Configure = Callable[..., PretrainConfig]
CONTRASTIVE = ContrastiveSettings(panel_least=0.1, fewest_genes=5)
DEEP = ModelConfig(
    layers=4, dim=64, heads=4, hidden=256, protein_dim=32, out_dim=32, decoder_dim=64, dropout=0.1, max_tokens=256
)
CASES: dict[str, dict[str, Any]] = {
    "toy": {},
    "deep": {"model": DEEP},
    "bf16": {"model": DEEP, "precision": "bf16"},
    "recompute": {"model": DEEP, "run": RunSettings(workers=0, recompute=True)},
    "tied": {"objective": MaskedSettings(masking="panel", head="tied")},
    "contrastive": {"objective": CONTRASTIVE},
    "cached": {"objective": replace(CONTRASTIVE, cache_cells=8)},
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _really(config: PretrainConfig, corpus: Corpus, batch: Batch) -> tuple[Trainee, dict[str, torch.Tensor], Any]:
    torch.manual_seed(0)
    trainee = Trainee(config)
    trainee.encoder.recompute = config.run.recompute
    tensors = to_tensors(batch, token_tables([corpus], torch.device("cpu")), torch.device("cpu"))
    return trainee, tensors, torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16")


def _counted(config: PretrainConfig, corpus: Corpus, kind: str = "cpu") -> int:
    _, activations = count_bytes(config, corpus, sample_batches(config, corpus)[0], kind=kind)
    return activations


@pytest.mark.parametrize("name", CASES)
def test_counting_gives_what_computing_takes(name: str, corpus: Corpus, make_config: Configure) -> None:
    config = make_config(**CASES[name])
    batch = sample_batches(config, corpus)[0]
    trainee, tensors, mixed = _really(config, corpus, batch)
    with mixed, FlopCounterMode(display=False, custom_mapping=FLOP_COUNTS) as counter:
        trainee(tensors)
    assert count_flops(config, corpus, batch) == counter.get_total_flops() > 0
    held, activations = count_bytes(config, corpus, batch, kind="cpu")
    assert held == sum(tensor.nbytes for tensor in tensors.values())
    # Apart, since a selection by numbers has no size without them.
    assert activations == pytest.approx(most_bytes(trainee, tensors, mixed), rel=0.01)


@pytest.mark.parametrize("name", ["deep", "recompute", "tied"])
def test_memory_is_what_the_allocator_hands_out(name: str, corpus: Corpus, make_config: Configure) -> None:
    config = make_config(**CASES[name])
    batch = sample_batches(config, corpus)[0]
    trainee, tensors, mixed = _really(config, corpus, batch)
    for parameter in trainee.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        with mixed:
            sums = trainee(tensors)
        trainee.objective.loss(sums, tensors).backward()  # type: ignore[no-untyped-call]
    now = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    # Kernels take some for themselves that no tensor of the program holds.
    assert _counted(config, corpus) == pytest.approx(most, rel=0.1)


def test_recomputing_blocks_saves_their_inner_values(corpus: Corpus, make_config: Configure) -> None:
    kept = _counted(make_config(model=DEEP), corpus)
    again = _counted(make_config(model=DEEP, run=RunSettings(recompute=True)), corpus)
    assert again < 0.6 * kept


def test_sentences_in_small_parts_save_memory(corpus: Corpus, make_config: Configure) -> None:
    at_once = _counted(make_config(model=DEEP, objective=CONTRASTIVE), corpus)
    parts = _counted(make_config(model=DEEP, objective=replace(CONTRASTIVE, cache_cells=8)), corpus)
    assert parts < 0.4 * at_once


def test_a_gpu_keeps_no_matrix_of_attention(corpus: Corpus, make_config: Configure) -> None:
    config = make_config(model=DEEP)
    sentences, length = sample_batches(config, corpus)[0].tokens.shape
    saved = _counted(config, corpus) - _counted(config, corpus, "cuda")
    assert saved > 3 * sentences * DEEP.heads * length * length * 4
    mixed = make_config(precision="bf16")
    # Norms and what follows them are in float32 there.
    assert _counted(mixed, corpus, "cuda") > _counted(mixed, corpus)


def test_nothing_is_drawn(corpus: Corpus, make_config: Configure) -> None:
    before = torch.get_rng_state()
    _counted(make_config(model=DEEP), corpus)
    assert torch.equal(before, torch.get_rng_state())


def test_parameters_are_those_of_the_module(make_config: Configure) -> None:
    config = make_config(model=DEEP)
    trainee, found = Trainee(config), parameters(config)
    assert found.encoder == sum(p.numel() for p in trainee.encoder.parameters())
    assert found.block == sum(p.numel() for p in trainee.encoder.blocks[0].parameters())
    assert found.learned == sum(p.numel() for p in trainee.parameters()) == found.encoder + found.objective
