"""Which species a file is of: by assembly prefixes, by ids, by symbols, by what the file says. Never silently."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uce.errors import InputError
from uce.files import printable, shorten
from uce.genes.catalogue import Species, canonical_species, catalogue, find_species, species_label
from uce.genes.collection import list_species, table_names, why_no_table
from uce.genes.columns import check_column, names_in, text_columns
from uce.genes.kinds import BUNDLED_ENCODER
from uce.genes.names import UNLISTED, classify, explain_names, prefixed_species, split_id, split_prefix, tidy

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Detection",
    "Species",
    "canonical_species",
    "catalogue",
    "check_one_species",
    "confirm_species",
    "detect_species",
    "species_label",
    "symbol_matches",
]

# Ids decide from this share of the names on. Below it, down to the second, they are the genes without a symbol of an
# annotation that falls back on ids, and say whose symbols the others are.
_IDS_DECIDE, _IDS_COUNT = 0.5, 0.01
# The best species must have this share of the names that could be protein-coding genes ...
_SYMBOLS_DECIDE = 0.6
# ... and, against every rival, this many names that only one of the two has, in this proportion.
_TELLING_NAMES, _TELLING_RATIO = 5, 4.0
# Fewer symbols tell nothing: single letters are symbols of fly genes.
_FEWEST_SYMBOLS = 20
# Classes of names that come along in files of any species.
_COMPANY = {"spike-in", "antibody", "transgene", "virus", "empty"}


@dataclass(frozen=True)
class Detection:
    """A species and why it was chosen.

    Attributes
    ----------
    species
        Latin name.
    column
        Column of `var` that showed it ("index" for the index), "" where names did not tell.
    reason
        One clause for the user.
    scores
        Species -> share of the names (of those that could be genes) that are its ids or symbols.
    """

    species: str
    column: str
    reason: str
    scores: dict[str, float]


def detect_species(
    var: "pd.DataFrame",
    *,
    organism: str | None = None,
    column: str | None = None,
    file: str = "input",
    candidates: Sequence[str] | None = None,
    encoder: str = BUNDLED_ENCODER,
) -> Detection:
    """Tell the species of a file from its gene names.

    Evidence in this order: prefixes of assemblies (GRCh38_) on half of the names, stable ids of one species on half of
    them, symbols. By symbols the species with most names wins if it has 60 % of those that could be coding genes, at
    least 20, and if it is told apart from every rival by the names that only one of the two has: at least five, and at
    least four times as many as the rival has. Human and rhesus share 17,000 symbols, so the ratio of matches, 1.1 for
    human cells, says nothing; but in real files of human cells the names that only human has outnumber those that only
    rhesus has 40 to 90 times (mouse and rat: 34 to 47 times). Ids on a few of the names are the genes without a symbol,
    and decide at once. Where names do not tell, what the file says decides among the species that fit.

    Parameters
    ----------
    var
        Gene annotation of the file: names in the index or a text column.
    organism
        What the file says ("Homo sapiens", "NCBITaxon:9606"); it must not contradict the names.
    column
        The only column to look at, or "index".
    candidates
        Species with a table; by default all that have one of `encoder`.

    Raises
    ------
    InputError
        The names are of several species, of one without a table, contradict `organism`, or do not tell.
    """
    known = list(candidates) if candidates is not None else list_species(encoder=encoder)
    evidence = _Evidence(_names(var, column, file), _hint(var, organism), tuple(known), encoder, file)
    found = _by_prefix(evidence) or _by_ids(evidence) or _by_symbols(evidence)
    if found.species not in known:
        msg = f"{file}: {found.reason}. There is {why_no_table(found.species, encoder)}"
        raise InputError(msg)
    if evidence.hint not in (None, found.species):
        msg = f"{file}: the file says {species_label(str(evidence.hint))}, but {found.reason}."
        raise InputError(f"{msg} Give --species {found.species} to embed the cells by these genes.")
    return found


def confirm_species(
    species: str, var: "pd.DataFrame", *, column: str | None = None, file: str = "input", encoder: str = BUNDLED_ENCODER
) -> Detection:
    """Accept the species a user gave, unless the ids of the file are those of another.

    What the file says of its organism does not count here: cells of a species whose genes were mapped to human ids are
    embedded as human ones when asked for.

    Raises
    ------
    UsageError
        No such species is known.
    InputError
        The ids or prefixes are of another species.
    """
    name = canonical_species(species)
    evidence = _Evidence(_names(var, column, file), None, (name,), encoder, file)
    shown = _by_prefix(evidence) or _by_ids(evidence)
    others = any(_id_counts(texts)[name] >= _IDS_COUNT * len(texts) for texts in evidence.names.values())
    if shown is not None and shown.species != name and not others:
        msg = f"{file}: --species {printable(species)}, but {shown.reason}. Give --species {shown.species}."
        raise InputError(msg)
    scores = shown.scores if shown else {}
    return Detection(name, shown.column if shown and shown.species == name else "", "given by --species", scores)


def symbol_matches(
    names: Sequence[str], *, candidates: Sequence[str] | None = None, encoder: str = BUNDLED_ENCODER
) -> dict[str, frozenset[str]]:
    """Species -> which of `names` are exactly a symbol in its table; species without any are left out."""
    distinct = {split_prefix(tidy(name))[1] for name in names} - {""}
    species = list_species(encoder=encoder) if candidates is None else candidates
    found = {name: table_names(name, encoder=encoder) & distinct for name in species}
    return {name: matched for name, matched in found.items() if matched}


def check_one_species(prefixed: Mapping[str, int], names: Sequence[str], file: str) -> None:
    """Refuse a file whose reference joins several species (`prefixed`, as `prefixed_species` counts them).

    Raises
    ------
    InputError
        More than one species: the cells of a mixed sample have to be told apart before they are embedded.
    """
    if len(prefixed) > 1:
        counted = ", ".join(f"{species_label(species)} on {n:,} names" for species, n in prefixed.items())
        examples = [next(name for name in names if split_prefix(name)[0] == species) for species in prefixed]
        msg = f"{file}: the reference joins several species ({counted}; {shorten(examples)}). Split the genes by prefix"
        raise InputError(f"{msg} and the cells by species, and embed each part with its --species.")


@dataclass(frozen=True)
class _Evidence:
    names: Mapping[str, list[str]]
    hint: str | None
    known: tuple[str, ...]
    encoder: str
    file: str


def _names(var: "pd.DataFrame", column: str | None, file: str) -> dict[str, list[str]]:
    columns = text_columns(var) if column is None else [check_column(var, column, file)]
    return {name: [tidy(text) for text in names_in(var, name)] for name in columns}


def _hint(var: "pd.DataFrame", organism: str | None) -> str | None:
    """The species the file names: in its facts, or gene by gene as CELLxGENE files do."""
    if organism is not None:
        return find_species(organism)
    if "feature_reference" not in var:
        return None
    references = Counter(var["feature_reference"].astype(str).tolist()).most_common()
    return next((found for text, _ in references if (found := find_species(text))), None)


def _because(species: str, reason: str) -> str:
    return f"the names are of {species_label(species)}: {reason}"


def _by_prefix(evidence: _Evidence) -> Detection | None:
    for column, texts in evidence.names.items():
        prefixed = prefixed_species(texts)
        check_one_species(prefixed, texts, evidence.file)
        for species, n in prefixed.items():
            part = n / len(texts)
            if part >= _IDS_DECIDE:
                reason = f"{n:,} of {len(texts):,} names carry its assembly prefix ({shorten(texts[:2])})"
                return Detection(species, column, _because(species, reason), {species: part})
    return None


def _by_ids(evidence: _Evidence) -> Detection | None:
    counted = {column: _id_counts(texts) for column, texts in evidence.names.items()}
    column = max(counted, key=lambda name: counted[name].total())
    found, texts = counted[column], evidence.names[column]
    genes = sum(classify(name) not in _COMPANY for name in set(texts)) or 1
    scores = {species: n / genes for species, n in found.most_common()}
    if sum(scores.values()) < _IDS_DECIDE:
        return None
    strong = [species for species, part in scores.items() if part >= _IDS_DECIDE / 5]
    if len(strong) > 1:
        pair = " and ".join(species_label(species) for species in strong)
        msg = f"{evidence.file}: {column} holds ids of {pair}. Split the file by species"
        raise InputError(f"{msg}, and embed each part with its --species.")
    species = found.most_common(1)[0][0]
    reason = f"{found[species]:,} of {len(texts):,} names in {column} are its ids ({_example_ids(texts, species)})"
    return Detection(species, column, _because(species, reason), scores)


def _example_ids(names: Sequence[str], species: str) -> str:
    return shorten([name for name in names if split_id(split_prefix(name)[1])[0] == species][:2])


def _id_counts(names: Sequence[str]) -> Counter[str]:
    counts = Counter(split_id(split_prefix(name)[1])[0] for name in dict.fromkeys(names))
    # Ids of species outside the catalogue tell nothing here; a user's own table may have them.
    del counts[""], counts[UNLISTED]
    return counts


def _by_symbols(evidence: _Evidence) -> Detection:
    matches = {
        column: symbol_matches(texts, candidates=evidence.known, encoder=evidence.encoder)
        for column, texts in evidence.names.items()
    }
    column = max(matches, key=lambda name: max(map(len, matches[name].values()), default=0))
    found, texts = matches[column], evidence.names[column]
    if owner := _id_owner(texts):
        found[owner] = found.get(owner, frozenset()) | {name for name in texts if split_id(name)[0] == owner}
    if not found:
        raise InputError(_nothing_matches(evidence))
    best, *rest = sorted(found, key=lambda name: -len(found[name]))
    counted = f"{len(found[best]):,} of {len(texts):,} names in {column} are its symbols{_telling(best, rest, found)}"
    # Zebrafish annotations write some symbols in capitals as human ones are: those do not speak for the rival.
    found[best] |= _in_any_case(best, texts, evidence)
    scores = _scores(found, texts)
    if owner and (owner not in evidence.known or scores[owner] >= _SYMBOLS_DECIDE):
        reason = f"where a symbol is missing, its ids stand in {column} ({_example_ids(texts, owner)})"
        return Detection(owner, column, _because(owner, reason), scores)
    rivals = [name for name in rest if not _told_apart(found[best], found[name])]
    if scores[best] >= _SYMBOLS_DECIDE and not rivals and len(found[best]) >= _FEWEST_SYMBOLS:
        return Detection(best, column, _because(best, counted), scores)
    hint = evidence.hint
    if hint in [best, *rivals] and scores[hint] >= _SYMBOLS_DECIDE:
        reason = (
            f"the file says so, and {scores[hint]:.0%} of the names in {column} that could be genes are its symbols"
        )
        return Detection(hint, column, _because(hint, reason), scores)
    fits = [f"{name} ({len(found[name]):,} names, {scores[name]:.0%})" for name in [best, *rivals]]
    msg = f"{evidence.file}: the gene names do not tell the species; best fit {shorten(fits)}."
    raise InputError(f"{msg} First names in {column}: {shorten(texts[:5])}. Give --species.")


def _scores(found: Mapping[str, frozenset[str]], names: Sequence[str]) -> dict[str, float]:
    """Share of the names that could be genes; one that no species has counts as such if it looks like nothing else."""
    anywhere = frozenset[str]().union(*found.values())
    genes = len(anywhere) + sum(classify(name) == "unknown" for name in set(names) - anywhere)
    return {name: len(found[name]) / genes for name in sorted(found, key=lambda name: -len(found[name]))}


def _id_owner(names: Sequence[str]) -> str | None:
    counts = _id_counts(names)
    species, n = max(counts.items(), key=lambda item: item[1], default=("", 0))
    return species if n >= max(1.0, _IDS_COUNT * len(names)) else None


def _in_any_case(species: str, names: Sequence[str], evidence: _Evidence) -> frozenset[str]:
    if species not in evidence.known:
        return frozenset()
    folded = {name.lower() for name in table_names(species, encoder=evidence.encoder)} - {""}
    return frozenset(name for name in names if name.lower() in folded)


def _told_apart(best: frozenset[str], rival: frozenset[str]) -> bool:
    only_best, only_rival = len(best - rival), len(rival - best)
    return only_best >= _TELLING_NAMES and only_best >= _TELLING_RATIO * only_rival


def _telling(best: str, rest: Sequence[str], found: Mapping[str, frozenset[str]]) -> str:
    if not rest:
        return ""
    only, back = len(found[best] - found[rest[0]]), len(found[rest[0]] - found[best])
    return f"; {only:,} of them are unknown in {species_label(rest[0])}, {back:,} the other way round"


def _nothing_matches(evidence: _Evidence) -> str:
    column, texts = next(iter(evidence.names.items()))
    seen = f"{evidence.file}: no gene table knows any of the {len(texts):,} names (in {column}: {shorten(texts[:5])})"
    ways = "Give --gene-column if the names are in another column; cells of a species without a gene table need one."
    return f"{seen}. {explain_names(texts) or ways}"
