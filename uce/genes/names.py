"""Gene names as text: their normal form, prefixes of mixed references, spreadsheet dates, and what has no protein."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import TypeVar

from uce.genes.catalogue import catalogue

T = TypeVar("T")

_QUOTES = " \t\r\n\v\f\u00a0\ufeff\"'`\u2018\u2019\u201c\u201d"
UNLISTED = "unlisted_species"
# A prefix on fewer names than this share is a stray transgene or leftover, not a second species of the reference.
_PREFIX_SHARE = 0.01


def sole_owners(pairs: Iterable[tuple[str, T]]) -> dict[str, T]:
    """Name -> what it stands for; names that are empty or stand for several are left out."""
    listed = list(pairs)
    counts = Counter(name for name, _ in listed)
    return {name: owner for name, owner in listed if name and counts[name] == 1}


def tidy(name: str) -> str:
    """`name` in Unicode form NFKC, without NULs and without white space and quotes around it."""
    if not name.isascii():
        name = unicodedata.normalize("NFKC", name)
    return name.replace("\0", "").strip(_QUOTES)


@cache
def _prefix_pattern() -> re.Pattern[str]:
    assemblies = sorted(_assemblies(), key=len, reverse=True)
    # Cell Ranger pads with underscores to one width; Seurat turns every underscore into a dash.
    return re.compile(f"({'|'.join(map(re.escape, assemblies))})(?:-20\\d\\d-[A-Z])?(?:_+|-+)(?=.)")


@cache
def _assemblies() -> dict[str, str]:
    names = {prefix: species.name for species in catalogue().values() for prefix in species.prefixes}
    return names | {prefix.replace("_", "-"): name for prefix, name in names.items()}


@cache
def _starts() -> tuple[str, ...]:
    return tuple(_assemblies())


def split_prefix(name: str) -> tuple[str, str]:
    """Species and rest of a name like "GRCh38___CD3E"; ("", name) where no known assembly stands in front."""
    if not name.startswith(_starts()):
        return "", name
    found = _prefix_pattern().match(name)
    return (_assemblies()[found[1]], name[found.end() :]) if found else ("", name)


def prefixed_species(names: Sequence[str]) -> dict[str, int]:
    """Species whose assembly stands before at least one in a hundred names -> how many, most first."""
    found = Counter(species for species, _ in map(split_prefix, names) if species)
    return {species: n for species, n in found.most_common() if n >= max(2, _PREFIX_SHARE * len(names))}


@cache
def _id_pattern() -> re.Pattern[str]:
    known = [species for species in catalogue().values() if species.id_pattern]
    patterns = "|".join(f"(?P<{species.name}>{species.id_pattern})" for species in known)
    # The last alternative: ids of the same form of a species that the catalogue does not list.
    return re.compile(f"(?:{patterns}|(?P<{UNLISTED}>ENS(?!SASG)[A-Z]*G\\d{{11}}))(?:\\.\\d+)?(?:_PAR_Y)?")


def split_id(name: str) -> tuple[str, str]:
    """Species and stable id of a name like "ENSG00000182378.15_PAR_Y", version removed; ("", name) for other names.

    The dot of a clone or of a WormBase sequence name belongs to the name: only after an id it starts a version.
    """
    found = _id_pattern().fullmatch(name)
    if not found:
        return "", name
    species = str(found.lastgroup)
    return species, found[species]


_SUFFIX = re.compile(r"(.+?)(?:-|\.|__?)\d{1,3}")


def without_suffix(name: str) -> str | None:
    """`name` without the "-1", ".1", "_1" or "__1" that tools add to repeated names; None where there is none."""
    found = _SUFFIX.fullmatch(name)
    return found[1] if found else None


def mangled(name: str) -> str:
    """What R's `make.names` makes of a gene name: odd characters become dots, an X stands before a digit."""
    dotted = re.sub(r"[^A-Za-z0-9._]", ".", name)
    return "X" + dotted if re.match(r"\d|_|\.\d", dotted) else dotted


_MONTHS = {"sep": ("SEPTIN", "SEPT"), "mar": ("MARCHF", "MARCH"), "dec": ("DELEC", "DEC")}
_DATE = re.compile(r"(\d{1,2})-(sept?|mar|dec)|(sept?|mar|dec)-(\d{1,2})", re.IGNORECASE)
_LOST = re.compile(r"\d\.\d+E\+\d+|(?:3[6-9]|4\d|5[0-5])\d{3}", re.IGNORECASE)


def from_spreadsheet(name: str) -> tuple[str, ...] | None:
    """Names a gene had before a spreadsheet made a date of it: current and former symbol; () where it cannot be known.

    "1-Mar" and "2-Mar" stand for two genes each (MARCHF1 and MTARC1), and numbers for any; those are never guessed.
    Returns None for names that are no dates.
    """
    found = _DATE.fullmatch(name)
    if not found:
        return () if _LOST.fullmatch(name) else None
    month, number = (found[2] or found[3])[:3].lower(), int(found[1] or found[4])
    if month == "mar" and number <= 2:
        return ()
    return tuple(f"{stem}{number}" for stem in _MONTHS[month])


# What names without a gene in the table look like. Only names that no table has come here, so a pattern may be wide.
_CLASSES = {
    "peak": r"(?:chr)?[\w.]+[:_-]\d{3,}[-_]\d{3,}",
    "spike-in": r"(?i:ERCC[-._]?\d{5}|SIRV\w*|r?_?RNA_?SPIKE\w*|g?Spike-?in\w*|ArrayControl\w*)",
    "antibody": (
        r"(?i:.*TotalSeq.*|.*_ADT|ADT[_-].*|.*[_-]Ab|AB_.*|anti-.*|.*IgG\d?[ab]?[_ -]control.*|.*Hashtag.*|HTO.*|"
        r".*isotype.*)"
    ),
    "transgene": (
        r"(?i:(?:(?:e?[GYCR]FP|td-?Tomato|tdT|mCherry|mScarlet|DsRed\d?|Venus|ZsGreen\d?|i?Cre(?:ERT2?)?|FLPo?|r?tTA\d?|d?Cas9|"
        r"Luc(?:iferase)?|lacZ|Neo|Puro)R?(?:[-_ ].*)?)|.*WPRE.*)"
    ),
    "virus": r"(?i:ENSSASG\d+|SARS[-_ ]?CoV.*|HIV-?\d.*|EBV.*|HHV.*|H?CMV_.*|MN908947.*|NC_045512.*)",
    "immune-receptor": r"(?i:IG[HKL][VDJCAGME]\w*(?:[-/.].*)?|IGH|TR[ABGD][VDJC]\w*(?:[-/.].*)?)",
    "noncoding": (
        # Clones and predicted genes without a name.
        r"(?:LOC|LINC|FLJ|MGC|HCG|PCAT|CASC|BC|CR|[A-Z]{2})\d+|Gm\d+|(?:21ur|linc|anr)-\d+|\w*Rik\d*|[A-Z]{1,4}\d{5,8}\.\d+|.*lncRNA.*|LINC-.+|"
        r"(?:RP|CT[A-D]|XX\w*|KB|GS1?|LL\w*|LA16c|CH\d+|yR\w+|WI2|hsa|mmu|DKFZ\w*)-?\d*-.+|"
        # Kinds of RNA by their names.
        r"(?i:MIR(?:LET)?-?\d\S*|let-?7\S*|SNO?R[ADN]\S*|SNHG\d\S*|SCARNA\S*|SNAR-\S+|RN[UY]?[0-9]\S*|RNVU\S+|RPPH1|RMRP|7SK.*|"
        r"[UY]\d*_RNA\S*|U\d+\S*|Metazoa_SRP\S*|Vault\S*|MT[-:.](?:[TR]\S*|\S*rRNA|tRNA\S*)|n-?R5\S*|TTTY\d\S*|\S*RNA:\S+|MTRNR2L\d+|"
        r"\S*rRNA\S*|PWAR\d*|NCRNA\d+)|"
        # Antisense, host genes, pseudogenes.
        r"\S+-(?:AS|IT|OT|DT)\d*|\S+-AS\d-\S+|\S+P\d{0,3}|\S+-[pr]s\d*|\S+Psi(?::\S+)?|\S+(?:HG|OS|AS|OT|hg|os|Ot)\d?|"
        # The best known long non-coding RNAs; they carry much of the counts.
        r"(?i:MALAT1|NEAT1|XIST|TSIX|JPX|FTX|MEG3|MEG8|RIAN|MIRG|H19|MIAT|HOTAIR\w*|HOTTIP|PVT1|GAS5|DANCR|NORAD|TERC|CRNDE|PAR-?SN|PAR5|"
        r"UCA1|DLEU\d|ESRG|FIRRE)"
    ),
}
# Longer names are none, and patterns with repeats would be slow on them.
_LONGEST = 200
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
_BARCODE = re.compile(r"(?:.*[_:#-])?[ACGT]{10,}(?:[-_.:]\w+)*")


@cache
def _class_pattern() -> re.Pattern[str]:
    return re.compile("|".join(f"(?P<{kind.replace('-', '_')}>{pattern})" for kind, pattern in _CLASSES.items()))


def classify(name: str) -> str:
    """One word for a name no table has: a key of `_CLASSES` it looks like, "empty", "number", else "unknown"."""
    if not name or _NUMBER.fullmatch(name):
        return "number" if name else "empty"
    found = _class_pattern().fullmatch(name) if len(name) <= _LONGEST else None
    return next(kind for kind in _CLASSES if found[kind.replace("-", "_")] is not None) if found else "unknown"


def looks_like_barcode(name: str) -> bool:
    """Whether `name` is a cell barcode: ten or more bases, with a tag before or after."""
    return len(name) <= _LONGEST and _BARCODE.fullmatch(name) is not None


def share(names: Iterable[str], test: Callable[[str], object]) -> float:
    """Part of `names` for which `test` is true; 0 for no names."""
    outcomes = [bool(test(name)) for name in names]
    return sum(outcomes) / len(outcomes) if outcomes else 0.0


def explain_names(names: Sequence[str]) -> str:
    """What names that are no genes seem to be, and what to do; "" where nothing comes to mind."""
    if share(names, lambda name: classify(name) == "number") > 0.5:
        return "The gene names are numbers: they were lost. Give --gene-column with the column that holds them."
    if share(names, lambda name: classify(name) == "peak") > 0.5:
        return "This is not a gene matrix: the names look like peaks of open chromatin. Gene counts are needed."
    if share(names, looks_like_barcode) > 0.5:
        return "These look like cell names: the matrix may be transposed. Store cells in rows and genes in columns."
    return ""
