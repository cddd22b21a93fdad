"""Sound tables pass, and every planted fault is found and called by its name: on made-up proteins and on real ESM2."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from uce.errors import UsageError
from uce.genes.bundled import bundled_species
from uce.genes.collection import load_gene_table
from uce.genes.judging.health import TableHealth, judge_table
from uce.genes.tables import GeneTable

RNG = np.random.default_rng(11)
WIDTH, FAMILIES, MEMBERS = 64, 160, 4
STEMS = [f"{a}{b}{c}x" for a in "abcdef" for b in "ghijkl" for c in "mnopqr"][:FAMILIES]
FACTORS = RNG.normal(size=(WIDTH, WIDTH)) * 0.93 ** np.arange(WIDTH)[:, None]
FAMILY, MEMBER = RNG.normal(size=(FAMILIES, 1, WIDTH)), RNG.normal(size=(FAMILIES, MEMBERS, WIDTH))


def proteins(species_seed: int) -> np.ndarray:
    """(genes, width): a large common part, then families, members, and what the species changed."""
    own = np.random.default_rng(species_seed).normal(size=MEMBER.shape)
    rows = (0.8 * FAMILY + 0.6 * MEMBER + 0.3 * own).reshape(-1, WIDTH) @ FACTORS
    return (rows + 20 * FACTORS[0]).astype(np.float32)


def table_of(vectors: np.ndarray, species: str = "homo_sapiens", **columns: object) -> GeneTable:
    symbols = [f"{stem}{number}" for stem in STEMS for number in range(1, MEMBERS + 1)]
    given = {"symbols": symbols[: len(vectors)], "chromosomes": ["1"] * len(vectors), **columns}
    ids = [f"G{row:05d}" for row in range(len(vectors))]
    return GeneTable.from_rows(species=species, encoder="esm2_made_up", ids=ids, vectors=vectors, **given)


def judged(vectors: np.ndarray, **options: object) -> TableHealth:
    return judge_table(table_of(vectors), **options)


def rotated(vectors: np.ndarray, seed: int = 0) -> np.ndarray:
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(vectors.shape[1],) * 2))
    return (vectors @ turn).astype(np.float32)


@pytest.fixture(scope="module")
def other() -> GeneTable:
    return table_of(proteins(2), "gallus_gallus", symbols=[f"{s}{n}".upper() for s in STEMS for n in range(1, 5)])


# Real vectors of ESM2 8M: 326 human kinases


@pytest.fixture(scope="module")
def kinases(shared: Path) -> tuple[list[str], np.ndarray]:
    """Symbols and the mean vector of each, as a gene has it."""
    with np.load(shared / "data" / "gene_vectors" / "esm2_8m_kinases.npz", allow_pickle=False) as content:
        symbol, vectors = content["symbol"], content["vectors"]
    names = sorted(set(symbol.tolist()) - {""})
    return names, np.stack([vectors[symbol == name].mean(axis=0) for name in names])


@pytest.fixture(scope="module")
def relatives(kinases: tuple[list[str], np.ndarray]) -> Callable[..., tuple[GeneTable, GeneTable]]:
    """Two 'species' from real vectors: of every family of kinases one member goes to each, under one symbol.

    Paralogues stand in for orthologues, which is the harder test. The rest keep the names they have.
    """
    names, vectors = kinases
    members: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        members.setdefault(name.rstrip("ABCDEG").rstrip("0123456789"), []).append(row)
    first, second = [], []
    for stem, rows in members.items():
        label = stem if len(rows) > 1 else names[rows[0]]
        first.append((label, rows[0]))
        second += [(label, rows[1])] if len(rows) > 1 else []
        for row in rows[2:]:
            (first if row % 2 else second).append((names[row], row))

    def made(change: Callable[[np.ndarray], np.ndarray] = lambda rows: rows) -> tuple[GeneTable, GeneTable]:
        left, right = (
            GeneTable.from_rows(
                species=species,
                encoder="esm2_t6_8M_UR50D",
                ids=[name for name, _ in chosen],
                symbols=[name for name, _ in chosen],
                vectors=alter(vectors[[row for _, row in chosen]]),
            )
            for species, chosen, alter in (("homo_sapiens", first, change), ("mus_musculus", second, lambda rows: rows))
        )
        return left, right

    return made


@pytest.fixture(params=["made up", "real ESM2"])
def vectors(request: pytest.FixtureRequest) -> np.ndarray:
    """(genes, width) sound vectors, of proteins made up and of real ones; symbols come from `named`."""
    return proteins(1) if request.param == "made up" else request.getfixturevalue("kinases")[1]


@pytest.fixture
def named(vectors: np.ndarray, request: pytest.FixtureRequest) -> Callable[[np.ndarray], TableHealth]:
    """Judges vectors under the symbols that belong to `vectors`, all on a chromosome."""
    real = vectors.shape[1] != WIDTH
    symbols = request.getfixturevalue("kinases")[0] if real else table_of(vectors).symbols
    return lambda rows: judge_table(table_of(rows, symbols=symbols))


def test_sound_vectors_have_no_problem_and_their_families_hold_together(
    vectors: np.ndarray, named: Callable[[np.ndarray], TableHealth]
) -> None:
    health = named(vectors)
    assert health.ok
    assert health.families is not None
    assert health.families.auc - 5 * health.families.error > 0.65
    assert health.spread > 0.1
    assert health.duplicated == 0
    assert health.verdict == ("sound" if len(vectors) >= 500 else "doubtful")


@pytest.mark.parametrize(
    "plant",
    [
        lambda rows: rows.mean(axis=0) + 1e-3 * np.random.default_rng(0).normal(size=rows.shape),
        lambda rows: np.repeat(rows[:1], len(rows), axis=0),
        lambda rows: rows.mean(axis=0) + np.linspace(-1, 1, len(rows))[:, None] * (rows[0] - rows.mean(axis=0)),
    ],
    ids=["mean and noise", "one vector", "a line"],
)
def test_collapsed_vectors_are_not_usable(
    plant: Callable[[np.ndarray], np.ndarray], vectors: np.ndarray, named: Callable[[np.ndarray], TableHealth]
) -> None:
    health = named(plant(vectors))
    assert health.verdict == "not usable"
    assert health.problems[0].startswith("the vectors hardly differ")
    assert len(health.problems) == 1  # the other checks mean nothing then


def interpolated(rows: np.ndarray) -> np.ndarray:
    wide = np.linspace(0, rows.shape[1] - 1, 2 * rows.shape[1])
    return np.stack([np.interp(wide, np.arange(rows.shape[1]), row) for row in rows])


@pytest.mark.parametrize(
    "stretch",
    [
        lambda rows: np.pad(rows, ((0, 0), (0, rows.shape[1] // 2))),
        lambda rows: np.tile(rows, 2),
        lambda rows: rows @ np.random.default_rng(0).normal(size=(rows.shape[1], 400)).astype(np.float32),
        interpolated,
    ],
    ids=["zeros", "repeated", "linear map", "interpolated"],
)
def test_a_smaller_model_stretched_to_the_width_is_found_and_told_what_it_does(
    stretch: Callable[[np.ndarray], np.ndarray], vectors: np.ndarray, named: Callable[[np.ndarray], TableHealth]
) -> None:
    narrow = vectors[:, : min(vectors.shape[1], 200)]
    health = named(stretch(narrow))
    assert health.verdict == "not usable"
    assert health.problems[0].endswith("Embed the proteins with the encoder that the checkpoint names.")
    assert f"wide but use {health.directions:,} directions" in health.problems[0]
    assert "published checkpoint then gives cosines around .9 between all cells" in health.problems[0]
    assert named(narrow).ok


def test_real_vectors_of_the_8_million_model_stretched_to_5120_are_found(shared: Path) -> None:
    with np.load(shared / "data" / "gene_vectors" / "esm2_8m_kinases.npz", allow_pickle=False) as content:
        vectors = content["vectors"]
    stretch = np.random.default_rng(0).normal(size=(320, 5120)).astype(np.float32)
    health = judged(vectors @ stretch)
    assert health.directions == 319  # a layer norm takes one of 320
    assert health.directions_possible > 420
    assert "5,120 wide but use 319" in health.problems[0]


def test_half_the_rows_copied_is_a_problem(vectors: np.ndarray, named: Callable[[np.ndarray], TableHealth]) -> None:
    half = len(vectors) // 2
    health = named(np.concatenate([vectors[:half], vectors[: len(vectors) - half]]))
    assert health.duplicated == 1.0
    assert any("a vector that another gene has too" in text and "Likely cause" in text for text in health.problems)
    alike = named(np.concatenate([vectors[:half], vectors[: len(vectors) - half] * 1.0000001]))
    assert alike.duplicated == 1.0


def test_one_default_vector_for_many_genes_is_a_problem() -> None:
    vectors = proteins(1)
    vectors[::10] = vectors[0]
    health = judged(vectors)
    assert health.largest_group == 64
    assert "largest group 64" in health.problems[0]


def test_some_copies_are_a_warning_and_borrowed_vectors_may_be_shared() -> None:
    vectors = proteins(1)
    vectors[1:80:2] = vectors[0:80:2]
    assert judged(vectors).ok
    assert "a genome doubled lately" in judged(vectors).warnings[0]
    vectors[1::2] = vectors[0::2]
    assert not judged(vectors).ok
    borrowed = judge_table(table_of(vectors, origins=["ortholog"] * len(vectors)))
    assert borrowed.verdict == "sound"
    assert borrowed.duplicated == 1.0


def test_shuffled_names_are_found_within_the_table(
    vectors: np.ndarray, named: Callable[[np.ndarray], TableHealth]
) -> None:
    health = named(vectors[np.random.default_rng(4).permutation(len(vectors))])
    assert health.verdict == "not usable"
    assert "genes of one family are no nearer than others" in health.problems[0]
    assert "the names do not belong to the vectors" in health.problems[0]
    assert health.families is not None
    assert abs(health.families.auc - 0.5) < 4 * health.families.error


# Against another species


def test_orthologues_of_a_sound_table_are_nearest_neighbours(other: GeneTable) -> None:
    health = judged(proteins(1), against=[other])
    (test,) = health.orthologues
    assert health.verdict == "sound"
    assert (test.species, test.genes, test.shared) == ("gallus_gallus", 640, 1.0)
    assert test.auc > 0.95
    assert test.nearest > 0.5 > 100 * test.chance
    assert test.reciprocal <= test.nearest
    assert test.alignment > 0.9
    assert test.mean_cosine > 0.99


def test_shuffled_names_differ_from_another_encoder_by_the_space(other: GeneTable) -> None:
    order = np.random.default_rng(4).permutation(640)
    shuffled = judged(proteins(1)[order], against=[other])
    assert shuffled.orthologues[0].alignment > 0.9
    assert shuffled.orthologues[0].nearest < 0.02
    assert "the names do not belong to the vectors" in shuffled.problems[0]
    assert "different encoders" not in str(shuffled)
    turned = judged(rotated(proteins(1)), against=[other])
    assert abs(turned.orthologues[0].alignment) < 0.2
    assert "of different encoders, or of one with other weights" in turned.problems[0]
    assert "names" not in "".join(turned.problems)
    assert turned.families.auc > 0.8


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (lambda rows: rows, ""),
        (rotated, "of different encoders"),
        (lambda rows: rows[np.random.default_rng(1).permutation(len(rows))], "no nearer than others in mouse"),
    ],
    ids=["sound", "other encoder", "shuffled"],
)
def test_real_vectors_are_judged_against_those_of_their_relatives(
    plant: Callable[[np.ndarray], np.ndarray],
    said: str,
    relatives: Callable[..., tuple[GeneTable, GeneTable]],
) -> None:
    first, second = relatives(plant)
    health = judge_table(first, against=[second])
    (test,) = health.orthologues
    assert test.genes >= 40
    assert health.ok == (not said)
    if said:
        assert said in health.problems[0]
        assert test.nearest < 0.15
    else:
        assert test.auc > 0.85
        assert test.nearest > 0.35
        assert test.alignment > 0.9


def test_vectors_of_nothing_are_told_from_those_of_another_encoder(other: GeneTable) -> None:
    noise = np.random.default_rng(3).normal(size=(640, WIDTH)) * np.linspace(3, 0.1, WIDTH) + 5
    assert "are these vectors of proteins at all" in judged(noise, against=[other]).problems[0]


def test_a_reference_with_shuffled_names_is_the_one_to_blame(other: GeneTable) -> None:
    shuffled = table_of(proteins(2)[np.random.default_rng(4).permutation(640)], "gallus_gallus")
    health = judged(proteins(1), against=[shuffled])
    assert health.ok
    assert "the names of the other table do not belong to its vectors" in health.warnings[0]
    assert "chicken" in health.warnings[0]
    both = judged(proteins(1), against=[shuffled, other])
    assert both.ok


def test_a_distant_species_is_no_judge(other: GeneTable) -> None:
    """Few common symbols, some by chance for other genes: a table is not called shuffled for that."""
    order = np.random.default_rng(4).permutation(640)
    symbols = np.where(np.arange(640) < 60, other.symbols, [f"only{n}here" for n in range(640)])
    distant = table_of(proteins(2)[order], "saccharomyces_cerevisiae", symbols=symbols)
    health = judged(proteins(1), against=[distant])
    assert health.orthologues[0].auc < 0.65
    assert health.verdict == "sound"


def test_few_common_symbols_leave_the_space_to_tell(other: GeneTable) -> None:
    nameless = table_of(rotated(proteins(2)), "gallus_gallus", symbols=[f"x{n}" for n in range(640)])
    health = judged(proteins(1), against=[nameless])
    assert health.orthologues[0].genes == 0
    assert health.orthologues[0].auc is None
    assert "different encoders" in health.problems[0]


def test_other_directions_are_no_fault_where_orthologues_are_found() -> None:
    """A table of one large family beside a whole proteome varies along other directions."""
    rng = np.random.default_rng(5)
    small, rest = (0.3 * rng.normal(size=(640, WIDTH)) for _ in range(2))
    mean, varied = proteins(1).mean(axis=0), proteins(1) - proteins(1).mean(axis=0)
    shared, others = np.hstack([proteins(2), small]), np.hstack([mean + rest, varied])
    first = table_of(np.hstack([proteins(1), small]))
    names = [*first.symbols[:100], *(f"x{n}" for n in range(540))]
    second = table_of(np.concatenate([shared[:100], others[100:]]), "mus_musculus", symbols=names)
    health = judge_table(first, against=[second])
    assert health.orthologues[0].alignment < 0.2
    assert health.orthologues[0].auc > 0.8
    assert health.verdict == "sound"


@pytest.mark.parametrize("change", ["width", "kind"])
def test_tables_of_two_kinds_are_not_compared(change: str) -> None:
    rows = table_of(proteins(1))
    cut = rows.vectors[:, :32] if change == "width" else rows.vectors
    name = rows.encoder if change == "width" else "esm2_another"
    second = GeneTable.from_rows(species="mus_musculus", encoder=name, ids=rows.ids, vectors=cut)
    with pytest.raises(UsageError, match=r"vectors of two kinds cannot be compared. Give a table of the same kind"):
        judge_table(rows, against=[second])


def test_a_variant_of_the_kind_can_be_compared() -> None:
    rows = table_of(proteins(1))
    variant = GeneTable.from_rows(
        species="mus_musculus", encoder="esm2_made_up+grcm39", ids=rows.ids, vectors=rows.vectors
    )
    assert judge_table(rows, against=[variant]).ok


# What a table lacks


def test_missing_places_symbols_and_genes_are_warnings() -> None:
    bare = judge_table(table_of(proteins(1)[:300], chromosomes=None, symbols=[""] * 300))
    assert bare.ok
    assert bare.verdict == "doubtful"
    assert [text.split(":")[0] for text in bare.warnings] == [
        "no gene has a chromosome",
        "only 300 genes",
        "no gene has a symbol",
    ]
    assert bare.families is None
    places = ["1"] * 200 + ["unplaced"] * 440
    assert judge_table(table_of(proteins(1), chromosomes=places)).warnings[0].startswith("only 31% of the genes have a")


def test_lengths_that_differ_greatly_are_a_warning() -> None:
    vectors = proteins(1)
    vectors[::20] *= 10
    assert "three times longer or shorter" in judged(vectors).warnings[0]


@pytest.mark.parametrize("genes", [1, 2, 5])
def test_tiny_tables_are_judged_without_a_crash(genes: int) -> None:
    health = judge_table(table_of(proteins(1)[:genes]), against=[table_of(proteins(2)[:3], "mus_musculus")])
    assert "genes: the cells' vectors would rest on few" in "".join(health.warnings)
    json.dumps(health.to_dict(), allow_nan=False)


def test_counts_and_shares_are_those_of_the_table() -> None:
    places = ["1"] * 320 + ["2"] * 160 + ["unplaced"] * 160
    counted, moved = [2] * 320 + [0] * 320, [True] * 64 + [False] * 576
    health = judge_table(table_of(proteins(1), chromosomes=places, proteins=counted, projected=moved))
    assert (health.genes, health.width, health.chromosomes) == (640, WIDTH, 2)
    assert (health.with_symbol, health.placed, health.projected) == (1.0, 0.75, 0.1)
    assert health.proteins_per_gene == 2.0


# How it is said


def test_the_report_starts_with_the_verdict_and_goes_into_json(other: GeneTable) -> None:
    health = judged(rotated(proteins(1)), against=[other])
    lines = str(health).splitlines()
    assert lines[0] == "health of homo_sapiens (esm2_made_up): not usable"
    assert lines[1] == "  genes 640, 64 wide, with symbol 100%"
    assert lines[-1].startswith("problem: the vectors and those of chicken (gallus_gallus) vary")
    content = json.loads(json.dumps(health.to_dict(), allow_nan=False))
    assert (content["verdict"], content["ok"], content["genes"]) == ("not usable", False, 640)
    assert content["orthologues"][0]["species"] == "gallus_gallus"
    assert content["problems"] == list(health.problems)


def test_the_same_table_gives_the_same_answer(other: GeneTable) -> None:
    assert judged(proteins(1), against=[other]) == judged(proteins(1), against=[other])


@pytest.mark.parametrize("species", bundled_species())
def test_the_bundled_tables_are_sound(species: str) -> None:
    health = judge_table(load_gene_table(species))
    assert health.verdict == "sound", str(health)


@pytest.mark.parametrize("species", ["zebrafish", "fly", "worm"])
def test_far_species_are_sound_against_human(species: str) -> None:
    health = judge_table(load_gene_table(species), against=[load_gene_table("human")])
    assert health.verdict == "sound", str(health)


def shifted(table: GeneTable) -> GeneTable:
    """Every name beside the vector of the next one in the alphabet."""
    order = np.argsort(np.char.lower(table.symbols))
    vectors = table.vectors.copy()
    vectors[order] = np.roll(table.vectors[order], 1, axis=0)
    return replace(table, vectors=vectors)


@pytest.mark.parametrize("species", ["mouse", "chicken", "zebrafish"])
def test_names_that_slipped_by_a_row_of_a_sorted_list_are_found(species: str) -> None:
    human, table = load_gene_table("human"), load_gene_table(species)
    sound, slipped = judge_table(table, against=[human]), judge_table(shifted(table), against=[human])
    assert sound.orthologues[0].over_paralogues > 0.98
    assert slipped.families.auc > 0.7  # families still hold together
    assert slipped.orthologues[0].over_paralogues < 0.45
    assert slipped.verdict == "not usable"
    assert "slipped by a row" in slipped.problems[0]


def test_real_vectors_whose_names_slipped_by_a_row_are_found(shared: Path) -> None:
    with np.load(shared / "data" / "gene_vectors" / "esm2_8m_kinases.npz", allow_pickle=False) as content:
        symbols, rows = np.unique(content["symbol"], return_index=True)
        vectors = content["vectors"][rows]
    human, mouse = (
        GeneTable.from_rows(species=name, encoder="esm2_t6_8M_UR50D", ids=symbols[1:], symbols=symbols[1:], vectors=v)
        for name, v in (("homo_sapiens", vectors[1:]), ("mus_musculus", vectors[1:] * 1.01))
    )
    assert judge_table(mouse, against=[human]).ok
    slipped = judge_table(shifted(mouse), against=[human])
    assert slipped.verdict == "not usable"
    assert "slipped by a row" in slipped.problems[0]
