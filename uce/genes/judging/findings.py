"""What the numbers of a gene table mean, in words: the likely cause of what is wrong, and the way out.

What goes wrong is one of a few accidents: all vectors nearly the same, vectors of a smaller model stretched to a larger
width, one vector for many genes, names that do not belong to the vectors, vectors of another encoder than the other
species have. The values beside the limits were measured on sound tables (real ESM2 8M vectors of 326 human kinases;
composition of human, mouse and yeast proteins in amino acids and pairs of them; the 12 bundled tables), and on these
tables after the accident was brought about.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from uce.genes.catalogue import species_label
from uce.genes.judging.measures import FamilyTest, OrthologueTest
from uce.genes.resolver import MIN_GENES

if TYPE_CHECKING:
    from uce.genes.judging.health import TableHealth

LEAST_SPREAD = 0.03  # sound .31 (ESM2), .60 (composition), 1.0 (bundled); mean + noise of 1e-3: .004
LEAST_RANK = 3.0  # sound 16 (ESM2), 50, 210; all on one line: 1
LEAST_DIRECTIONS = 0.95  # sound .98 to 1; ESM2 8M stretched to the width of the next model: .67
MANY_COPIES, SOME_COPIES = 0.3, 0.1  # sound 0 (ESM2), 0 to .03 (composition); half of the rows copied: .67 to 1
LARGEST_GROUP = (20, 0.05)  # genes with one vector, and share of all
NORM_OUTLIERS = 0.01  # sound at most .0007
CHANCE_FAMILY, WEAK_FAMILY, SURE = 0.55, 0.65, 0.05  # sound .81 to .98; shuffled .49 to .51
CHANCE_SYMBOL, WEAK_SYMBOL = 0.65, 0.8  # sound .94 to 1, human with yeast .74; shuffled or rotated .28 to .56
SLIPPED, OWN_ROW, WEAK_ROW = (
    0.45,
    0.6,
    0.8,
)  # sound .91 (fly and human) to 1; names shifted by a row .27 to .43; shuffled .5
SAME_SPACE = 0.25  # sound .69 (worm and human) to 1, yeast and human .81; rotated or other weights at most .05
NEAR = 0.2  # share of symbols in common: human and chicken .8, fly .11, yeast .06
FEW_PLACED = 0.5
FEW_FOR_RANK = 30

Texts = tuple[str, ...]


def findings(health: "TableHealth", faulty_copies: tuple[float, int]) -> tuple[Texts, Texts]:
    """Problems and warnings of a table that was measured.

    Parameters
    ----------
    faulty_copies
        Share of the genes with a copied vector, and the largest group, among those that should have one of their own.
    """
    gaps = _gaps(health)
    if collapse := _collapse(health):  # nothing else can be told where all vectors are nearly one
        return collapse, gaps
    copied, alike = _copies(*faulty_copies, health.genes)
    misnamed, doubts = _names(health.families, health.orthologues)
    if not misnamed:
        misnamed, shifted = _rows(health.orthologues)
        doubts = (*doubts, *shifted)
    return (*_stretched(health), *copied, *misnamed), (*alike, *doubts, *gaps)


def _collapse(health: "TableHealth") -> Texts:
    if health.spread >= LEAST_SPREAD and (health.genes < FEW_FOR_RANK or health.effective_rank >= LEAST_RANK):
        return ()
    text = (
        f"the vectors hardly differ (mean cosine {health.raw.mean:.5f}, spread {health.spread:.4f}, effective rank "
        f"{health.effective_rank:.1f}): a model could not tell the genes apart. Likely causes: the first token or "
        "padding was read instead of the mean over residues, weights that were not loaded, or rounding. Make the "
        "vectors again."
    )
    return (text,)


def _stretched(health: "TableHealth") -> Texts:
    # A layer norm takes one direction, which is much of a narrow table.
    if health.directions + 2 >= LEAST_DIRECTIONS * health.directions_possible:
        return ()
    text = (
        f"the vectors are {health.width:,} wide but use {health.directions:,} directions where "
        f"{health.directions_possible:,} are possible: probably those of a smaller model, stretched to this width. A "
        "published checkpoint then gives cosines around .9 between all cells. Embed the proteins with the encoder that "
        "the checkpoint names."
    )
    return (text,)


def _copies(share: float, largest: int, genes: int) -> tuple[Texts, Texts]:
    text = f"{share:.0%} of the genes have a vector that another gene has too (largest group {largest:,})"
    fewest, part = LARGEST_GROUP
    if share > MANY_COPIES or largest > max(fewest, part * genes):
        cause = "rows written twice, or one default vector for many genes. Make the table again from the proteins"
        return (f"{text}. Likely causes: {cause}.",), ()
    if share > SOME_COPIES:
        return (), (
            f"{text}. Likely causes: a genome doubled lately, a gene listed under several ids, or copied rows.",
        )
    return (), ()


def _names(families: FamilyTest | None, tests: Sequence[OrthologueTest]) -> tuple[Texts, Texts]:
    """Names that do not fit the vectors, or vectors that do not fit those of the other species."""
    found = [test for test in tests if test.auc is not None and test.auc >= CHANCE_SYMBOL]
    # Distant species have few symbols in common, some of them for different genes: failing there says nothing.
    lost = [test for test in tests if test.auc is not None and test.shared >= NEAR and test not in found]
    strange = [test for test in tests if _is_strange(test) and test not in found]
    blind = families is not None and families.auc < max(CHANCE_FAMILY, 0.5 + 3 * families.error)
    if strange:
        texts = (_other_space(strange, blind=blind),)
    elif lost and (blind or families is None):
        texts = (_shuffled(lost, families),)
    elif lost:
        text = (
            f"genes of one symbol are no nearer than others in {_listed(lost)}, though the families of this table hold "
            "together: probably the names of the other table do not belong to its vectors. Check that one."
        )
        return (), (text, *_weak(families, found))
    elif blind and not found and families is not None and families.error < SURE:
        texts = (_shuffled([], families),)
    else:
        return (), _weak(families, found)
    return ((), texts) if found else (texts, ())


def _rows(tests: Sequence[OrthologueTest]) -> tuple[Texts, Texts]:
    """Names that stand beside the vector of a relative of their gene: a sorted list that slipped by a row or two."""
    # A shuffled table, which other tests find, comes out at one half.
    known = [
        (test, test.over_paralogues)
        for test in tests
        if test.over_paralogues is not None
        and test.shared >= NEAR
        and (test.over_paralogues < SLIPPED or (test.auc or 0.0) >= CHANCE_SYMBOL)
    ]
    if not (weak := [(test, share) for test, share in known if share < WEAK_ROW]):
        return (), ()
    test, share = min(weak, key=lambda pair: pair[1])
    text = (
        f"genes of one symbol in {species_label(test.species)} are nearer than other members of their family in only "
        f"{share:.0%} of cases (sound: 90 % and more). Likely cause: names that slipped by a row or two against their "
        "vectors, in this table or the other. Make the table again, with names and vectors side by side."
    )
    bad = share < OWN_ROW and not any(other >= WEAK_ROW for _, other in known)
    return ((text,), ()) if bad else ((), (text,))


def _is_strange(test: OrthologueTest) -> bool:
    return test.alignment is not None and test.alignment < SAME_SPACE


def _other_space(tests: Sequence[OrthologueTest], *, blind: bool) -> str:
    families = " Families do not hold together either: are these vectors of proteins at all?" if blind else ""
    return (
        f"the vectors and those of {_listed(tests)} vary along unrelated directions (alignment "
        f"{tests[0].alignment:.2f}; .7 to 1 is sound): they are of different encoders, or of one with other weights."
        f"{families} Embed both species with the same file of weights."
    )


def _shuffled(tests: Sequence[OrthologueTest], families: FamilyTest | None) -> str:
    parts = [f"genes of one symbol are no nearer than others in {_listed(tests)}"] if tests else []
    parts += [f"genes of one family are no nearer than others ({families.auc:.2f}, chance .5)"] if families else []
    cause = "the names do not belong to the vectors: rows in another order than the names"
    if tests and families is None:
        cause += ", here or in the other table"
    elif not tests:
        cause += ", or vectors that know nothing of proteins"
    return f"{', and '.join(parts)}. Likely cause: {cause}. Make the table again, with names and vectors side by side."


def _weak(families: FamilyTest | None, found: Sequence[OrthologueTest]) -> Texts:
    weak = [test for test in found if test.auc is not None and test.auc < WEAK_SYMBOL and test.shared >= NEAR]
    texts = []
    if weak:
        texts.append(
            f"genes of one symbol are hardly nearer than others in {_listed(weak)}: some names may not belong to their "
            "vectors. Compare with another species."
        )
    if families is not None and families.auc < WEAK_FAMILY:
        texts.append(
            f"genes of one family are hardly nearer than others ({families.auc:.2f} +- {families.error:.2f}, chance "
            ".5): some names may not belong to their vectors. Compare with a table of another species."
        )
    return tuple(texts)


def _gaps(health: "TableHealth") -> Texts:
    texts = []
    if not health.placed:
        texts.append("no gene has a chromosome: sentences cannot follow the genome. Give coordinates with --gtf.")
    elif health.placed < FEW_PLACED:
        texts.append(f"only {health.placed:.0%} of the genes have a chromosome. Is the GTF of the same assembly?")
    if health.genes < MIN_GENES:
        texts.append(f"only {health.genes:,} genes: the cells' vectors would rest on few. Is the proteome complete?")
    if not health.with_symbol:
        texts.append("no gene has a symbol: counts must be named by these ids, and little could be checked.")
    if health.norm_outliers > NORM_OUTLIERS:
        texts.append(
            f"{health.norm_outliers:.1%} of the vectors are three times longer or shorter than usual: vectors from "
            "several sources, or damaged ones."
        )
    return tuple(texts)


def _listed(tests: Sequence[OrthologueTest]) -> str:
    return ", ".join(species_label(test.species) for test in tests)
