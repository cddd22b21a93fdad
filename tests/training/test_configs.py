"""The configurations that come with the package can be read, and have the published shapes where they say so."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from uce.config import read_config
from uce.model.expression import ExpressionHead
from uce.training.corpus import Corpus, special_vectors
from uce.training.costs import sample_batches
from uce.training.counting import parameters
from uce.training.memory import memory
from uce.training.objectives.masked import MaskedSettings
from uce.training.settings import PretrainConfig

CONFIGS = Path(__file__).parents[2] / "configs"
PUBLISHED = {"uce_4l": 104_100_097, "uce_33l": 674_745_857}  # without the table of tokens


def _read(name: str, *overrides: str) -> PretrainConfig:
    return read_config(PretrainConfig, CONFIGS / f"{name}.yaml", overrides=overrides)


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in CONFIGS.iterdir() if not path.stem.startswith(("benchmark", "study")))
)
def test_every_configuration_can_be_read(name: str) -> None:
    config = _read(name)
    assert config.summary
    assert config.limits
    assert f"uce pretrain configs/{name}.yaml" in (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_shapes_have_the_published_number_of_parameters(name: str) -> None:
    config = _read(name)
    head = ExpressionHead(protein_dim=5120, cell_dim=1280)
    assert parameters(config).encoder + sum(p.numel() for p in head.parameters()) == PUBLISHED[name]
    assert isinstance(config.objective, MaskedSettings)
    assert (config.objective.mask_fraction, config.objective.queries, config.draws) == (0.2, 1024, 1024)
    assert config.objective.hidden == (2048, 512, 128)
    assert "NOBODY HAS TRAINED" in (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")


def test_the_recursive_encoder_has_fifteen_million_parameters_whatever_its_cycles() -> None:
    counts = {parameters(_read("recursive_15m", f"model.cycles={cycles}")).encoder for cycles in (4, 12, 21)}
    assert len(counts) == 1
    assert 14_500_000 < counts.pop() < 15_500_000


@pytest.fixture
def wide(corpus: Corpus) -> Corpus:
    """The planted corpus with gene vectors 5,120 wide."""
    vocabulary = corpus.datasets[0].vocabulary
    widened = replace(vocabulary, vectors=np.ones((len(vocabulary.vectors), 5120), dtype=np.float32))
    datasets = tuple(replace(dataset, vocabulary=widened) for dataset in corpus.datasets)
    return replace(corpus, datasets=datasets, specials=special_vectors(5120))


@pytest.mark.parametrize("name", PUBLISHED)
def test_they_fit_eight_gpus_of_80_gigabytes(name: str, wide: Corpus) -> None:
    config = _read(name)
    batches = sample_batches(config, wide, world=8)
    assert {batch.tokens.shape[0] for batch in batches} == {config.part_size // 8}
    assert all(batch.tokens.shape[1] > 1024 for batch in batches)
    needed = memory(config, wide, batches, kind="cuda", world=8)
    # The planted species has a few hundred genes, those of the published table 145,469 tokens. A tenth stays free.
    vectors = 4 * 5120 * 145_469
    assert needed.total - needed.vectors + vectors < 0.9 * 80e9
