"""The objective: what its numbers mean, what it is compared with, and that the answers come from the cell."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from uce.errors import UsageError
from uce.model.encoder import ModelConfig
from uce.training.batch import to_tensors, token_tables
from uce.training.corpus import Corpus
from uce.training.objectives.masked import MaskedObjective, MaskedSettings
from uce.training.settings import PretrainConfig
from uce.training.stream import Stream
from uce.training.trainee import Trainee

from .conftest import tensors_of

MODEL = ModelConfig(layers=1, dim=8, heads=2, hidden=16, protein_dim=12, out_dim=6, decoder_dim=8)
SETTINGS = MaskedSettings(queries=10, hidden=(9, 5), dropout=0.0)


def _batch(settings: MaskedSettings, *, cells: int = 7, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    asked = {"asked": torch.randint(20, (cells, settings.queries), generator=generator)}
    return {
        "queries": torch.randn(20, MODEL.protein_dim, generator=generator),
        **(asked if settings.masking == "cell" else {}),
        "labels": torch.randint(2, (cells, settings.queries), generator=generator).float(),
        "offsets": torch.randn(cells, settings.queries, generator=generator),
        "valid": torch.arange(cells) != 2,
    }


TIED = replace(SETTINGS, head="tied", masking="panel", queries=20)
PLACES = torch.randn(20, MODEL.out_dim, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("head", ["mlp", "tied"])
def test_a_head_that_says_nothing_costs_ln_2(head: str) -> None:
    settings = SETTINGS if head == "mlp" else TIED
    objective = MaskedObjective(settings, MODEL)
    if head == "mlp":
        nn.init.zeros_(objective.head.blocks[-1].weight)
        nn.init.zeros_(objective.head.blocks[-1].bias)
    # A tied head says nothing of genes that all lie in one place.
    sums = objective.answer(torch.randn(7, MODEL.out_dim), _batch(settings), PLACES[:1].expand(20, -1))
    assert float((sums["loss"] / sums["questions"]).detach()) == pytest.approx(np.log(2), abs=1e-6)
    assert sums["questions"] == 6 * settings.queries  # the cell that takes no part is not counted


def test_a_constant_cell_gives_the_gene_only_loss() -> None:
    objective = MaskedObjective(SETTINGS, MODEL).double()
    objective.gene_only.load_state_dict(objective.head.state_dict())
    batch = {key: value.double() if value.is_floating_point() else value for key, value in _batch(SETTINGS).items()}
    sums = objective.answer(objective.constant.expand(7, -1), batch)
    # The gene-only head answers once for all cells, in another order of sums.
    torch.testing.assert_close(sums["loss"], sums["gene_only"], rtol=1e-6, atol=0)


def test_a_tied_head_that_sees_no_cell_is_the_gene_only_head() -> None:
    objective = MaskedObjective(TIED, MODEL)
    nn.init.normal_(objective.head.bias.linear.weight)
    objective.gene_only.load_state_dict(objective.head.bias.state_dict())
    sums = objective.answer(torch.zeros(7, MODEL.out_dim), _batch(TIED), PLACES)
    torch.testing.assert_close(sums["loss"], sums["gene_only"], rtol=1e-6, atol=0)


def test_a_tied_head_expects_a_gene_in_the_cells_near_its_place() -> None:
    head = MaskedObjective(TIED, MODEL).head
    cells = nn.functional.normalize(PLACES - PLACES.mean(dim=0), dim=1)  # a cell for every place, in its direction
    logits = head(cells, torch.randn(20, 12), PLACES)
    assert torch.equal(logits.argmax(dim=0), torch.arange(20))


def test_asking_for_all_genes_or_naming_them_is_the_same() -> None:
    head = MaskedObjective(SETTINGS, MODEL).head
    cells, genes = torch.randn(4, 6), torch.randn(20, 12)
    named = head(cells, genes, torch.arange(20).expand(4, -1))
    torch.testing.assert_close(head(cells, genes, None), named)


def test_the_loss_is_the_mean_of_two_halves_of_the_questions() -> None:
    objective, batch = MaskedObjective(SETTINGS, MODEL), _batch(SETTINGS)
    cells = torch.randn(7, MODEL.out_dim)
    halves = []
    for part in (slice(0, 5), slice(5, 10)):
        half = {key: value[:, part] if key in ("asked", "labels", "offsets") else value for key, value in batch.items()}
        halves.append(objective.answer(cells, half)["loss"])
    torch.testing.assert_close(objective.answer(cells, batch)["loss"], halves[0] + halves[1])


def test_the_offset_is_added_only_where_asked_for() -> None:
    batch, cells = _batch(SETTINGS), torch.randn(7, MODEL.out_dim)
    plain = MaskedObjective(SETTINGS, MODEL)
    shifted = MaskedObjective(replace(SETTINGS, offset="dataset"), MODEL)
    shifted.load_state_dict(plain.state_dict())
    zero = {**batch, "offsets": torch.zeros_like(batch["offsets"])}
    assert (
        plain.answer(cells, batch)["loss"] == plain.answer(cells, zero)["loss"] == shifted.answer(cells, zero)["loss"]
    )
    assert shifted.answer(cells, batch)["loss"] != plain.answer(cells, batch)["loss"]


def test_the_detection_rate_baseline_becomes_the_best_logistic_regression_on_offsets() -> None:
    random = np.random.default_rng(0)
    batch = _batch(SETTINGS, cells=600)
    offsets = random.normal(size=(600, SETTINGS.queries))
    labels = random.random(offsets.shape) < 1 / (1 + np.exp(0.6 - 1.7 * offsets))
    labels[~batch["valid"]] = True  # a cell that takes no part must not pull at it
    batch |= {"offsets": torch.from_numpy(offsets).float(), "labels": torch.from_numpy(labels).float()}
    objective, cells = MaskedObjective(SETTINGS, MODEL), torch.randn(600, MODEL.out_dim)
    optimizer = torch.optim.LBFGS([objective.rates], max_iter=50, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = objective.loss(objective.answer(cells, batch), batch)
        value.backward()
        return value

    optimizer.step(loss)
    taking = batch["valid"].numpy()
    best = LogisticRegression(C=np.inf).fit(offsets[taking].reshape(-1, 1), labels[taking].ravel())
    expected = [best.coef_.item(), best.intercept_.item()]
    assert objective.rates.detach().tolist() == pytest.approx(expected, abs=2e-3)
    logits = expected[0] * offsets[taking] + expected[1]
    least = np.mean(np.logaddexp(0, logits) - labels[taking] * logits)
    totals = {name: value.detach() for name, value in objective.answer(cells, batch).items()}
    assert objective.fields(totals, step=1)["loss_rates"] == pytest.approx(least, abs=1e-5)


def test_the_detection_rate_baseline_begins_as_the_rates_themselves() -> None:
    objective, batch = MaskedObjective(SETTINGS, MODEL), _batch(SETTINGS)
    sums = objective.answer(torch.randn(7, MODEL.out_dim), batch)
    taking = batch["valid"]
    expected = nn.functional.binary_cross_entropy_with_logits(batch["offsets"][taking], batch["labels"][taking])
    torch.testing.assert_close(sums["rates"] / sums["questions"], expected)


@pytest.mark.parametrize(
    "settings", [MaskedSettings(queries=64, hidden=(32, 16)), MaskedSettings(queries=64, head="tied", masking="panel")]
)
@pytest.mark.parametrize("offset", ["none", "dataset"])
def test_no_gradient_of_a_baseline_reaches_the_model_and_none_of_the_model_a_baseline(
    corpus: Corpus, make_config: Callable[..., PretrainConfig], settings: MaskedSettings, offset: str
) -> None:
    config = make_config(objective=replace(settings, offset=offset))
    trainee, batch = Trainee(config), tensors_of(corpus, config, 0)
    sums = trainee(batch)
    named = dict(trainee.named_parameters())

    def reached(loss: torch.Tensor) -> set[str]:
        gradients = torch.autograd.grad(loss, list(named.values()), retain_graph=True, allow_unused=True)
        return {name for name, gradient in zip(named, gradients, strict=True) if gradient is not None}

    model, gene_only, rates = (reached(sums[name]) for name in ("loss", "gene_only", "rates"))
    assert rates == {"objective.rates"}
    assert all(name.startswith(("objective.gene_only.", "objective.constant")) for name in gene_only)
    # What is clipped apart is exactly what no loss of the model reaches, and every parameter is reached by one loss.
    baselines = {id(parameter) for parameter in trainee.objective.baselines()}
    assert {name for name, parameter in named.items() if id(parameter) in baselines} == gene_only | rates
    assert model == named.keys() - gene_only - rates
    assert reached(trainee.objective.loss(sums, batch)) == named.keys()


def _train(corpus: Corpus, config: PretrainConfig) -> tuple[Trainee, float, float]:
    """Train without files; means of the last 100 steps of loss and gene-only loss."""
    torch.manual_seed(config.seed)
    trainee = Trainee(config)
    optimizer = torch.optim.AdamW(trainee.parameters(), lr=1e-3)
    stream, device = Stream(corpus, config), torch.device("cpu")
    tables = token_tables([corpus], device)
    kept = []
    for step in range(config.steps):
        batch = config.objective.make_batch(stream.cells(step), config, step)
        sums = trainee(to_tensors(batch, tables, device))
        optimizer.zero_grad()
        ((sums["loss"] + sums["gene_only"]) / sums["questions"]).backward()
        optimizer.step()
        if step >= config.steps - 100:
            kept.append([float((sums[name] / sums["questions"]).detach()) for name in ("loss", "gene_only")])
    loss, gene_only = np.mean(kept, axis=0)
    return trainee, loss, gene_only


def test_planted_programmes_are_learned_and_a_strangers_cell_is_worse_than_none(
    make_corpus: Callable[..., Corpus], make_config: Callable[..., PretrainConfig]
) -> None:
    config = make_config(steps=200, batch_size=64)
    corpus = make_corpus(sizes=(4000,))
    trainee, loss, gene_only = _train(corpus, config)
    assert gene_only - loss > 0.03  # measured 0.047, 0.049, 0.039 on seeds 0 to 2

    batch = tensors_of(corpus, config, 1000)
    with torch.no_grad():
        cells = trainee(batch, embed=True)["cells"]
        own = trainee.objective.answer(cells, batch)
        swapped = trainee.objective.answer(cells.roll(1, dims=0), batch)
    assert swapped["loss"] > own["gene_only"] > own["loss"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mask_fraction": 0.0}, "mask_fraction = 0.0; a number between 0 and 1"),
        ({"mask_fraction": float("nan")}, "mask_fraction = nan"),
        ({"queries": 3}, "queries = 3; an even whole number"),
        ({"hidden": ()}, "at least one width"),
        ({"dropout": 1.0}, "dropout = 1.0"),
        ({"negatives": "matched", "masking": "panel"}, "needs objective.masking = 'cell'"),
    ],
)
def test_settings_out_of_range_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        MaskedSettings(**values)  # type: ignore[arg-type]
