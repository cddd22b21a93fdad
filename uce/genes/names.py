"""Gene names as text: their normal form, prefixes of mixed references, spreadsheet dates, and what has no protein."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache

from uce.genes.catalogue import catalogue

_QUOTES = " \t\r\n\v\f\u00a0\ufeff\"'`\u2018\u2019\u201c\u201d"
UNLISTED = "unlisted_species"
# A prefix on fewer names than this share is a stray transgene or leftover, not a second species of the reference.
_PREFIX_SHARE = 0.01


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


def split_prefix(name: str) -> tuple[str, str]:
    """Species and rest of a name like "GRCh38___CD3E"; ("", name) where no known assembly stands in front."""
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
    return re.compile(f"(?:{patterns}|(?P<{UNLISTED}>ENS[A-Z]*G\\d{{11}}))(\\.\\d+)?(_PAR_Y)?")


def split_id(name: str) -> tuple[str, str]:
    """Species and stable id of a name like "ENSG00000182378.15_PAR_Y", version removed; ("", name) for other names.

    The dot of a clone or of a WormBase sequence name belongs to the name: only after an id it starts a version.
    """
    found = _id_pattern().fullmatch(name)
    if not found:
        return "", name
    species = next(key for key, value in found.groupdict().items() if value is not None)
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


def _matcher(pattern: str, *, flags: int = 0) -> Callable[[str], object]:
    return re.compile(pattern, flags).search


_CLASSES: tuple[tuple[str, Callable[[str], object]], ...] = (
    ("peak", _matcher(r"^(chr)?[\w.]+[:_-]\d{3,}[-_]\d{3,}$")),
    (
        "spike-in",
        _matcher(r"^(ERCC-?\d+|SIRV\w*|r?_?RNA_?SPIKE\w*|g?Spike-?[Ii]n\w*|ArrayControl\w*)", flags=re.IGNORECASE),
    ),
    (
        "antibody",
        _matcher(
            r"(TotalSeq|_ADT$|^ADT[_-]|[_-]Ab$|^AB_|^anti-|IgG\d?[ab]?[_ -]control|Hashtag|^HTO|isotype)",
            flags=re.IGNORECASE,
        ),
    ),
    (
        "transgene",
        _matcher(
            r"^(e?[GYCR]FP|td-?Tomato|mCherry|mScarlet|DsRed\d?|Venus|ZsGreen\d?|Cre(ERT2?)?|iCre|FLPo?|WPRE|rtTA\d?|"
            r"tTA|Cas9|dCas9\w*|Luc(iferase)?|lacZ|NeoR|PuroR|Neo|Puro|bGH\w*|[a-z]?ZsGreen)([-_ ].*)?$",
            flags=re.IGNORECASE,
        ),
    ),
    (
        "virus",
        _matcher(
            r"^(ENSSASG\d+|SARS[-_ ]?CoV.*|HIV-?\d.*|EBV.*|HHV.*|CMV_.*|HCMV.*|MN908947.*|NC_045512.*)",
            flags=re.IGNORECASE,
        ),
    ),
    (
        "noncoding",
        _matcher(
            r"^(LOC\d+|LINC\d+|FLJ\d+|KIAA\d+P|[A-Z]{1,3}\d{5,6}\.\d+|(RP|CT[A-D]|XX\w*|KB|GS1?|LL\w*|LA16c|yR\w+|WI2|hsa|mmu)-?\d*-.+|"
            r"Gm\d+|BC\d+|A[A-Z]\d{6}|\w*Rik\d?|MIR(LET)?-?\d*\w*(HG)?|mir-?\w+|let-?7\w*|SNOR[ADN]\w*|SNHG\d+|SCARNA\w*|"
            r"RN[UY]?[0-9A-Z]*[-_]?\w*|Rn\d+\w*|[UY]\d*(_RNA)?|7SK|Metazoa_SRP|Vault|TTTY\d+\w*|FAM\d+[A-Z]*P|"
            r"n-?R5\w*|MT-[TR].*|mt-[TR].*|\w*lncRNA.*|asRNA:.+|CR\d+|.*RNA:.+)$|"
            r"-(AS|IT|OT|DT)\d*$|-AS\d-|P\d{1,3}$|-ps\d*$|(HG|OS|AS)\d?$"
        ),
    ),
)
# Judged after everything above: what is certain to be no gene name at all.
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
_BARCODE = re.compile(r"(?:.*[_:#-])?[ACGT]{10,}(?:[-_.:]\w+)*")


def classify(name: str) -> str:
    """One word for a name no table has: "noncoding", "spike-in", "antibody", "transgene", ..., else "unknown"."""
    if not name:
        return "empty"
    if _NUMBER.fullmatch(name):
        return "number"
    return next((kind for kind, matches in _CLASSES if matches(name)), "unknown")


def looks_like_barcode(name: str) -> bool:
    """Whether `name` is a cell barcode: ten or more bases, with a tag before or after."""
    return _BARCODE.fullmatch(name) is not None


def share(names: Iterable[str], test: Callable[[str], object]) -> float:
    """Part of `names` for which `test` is true; 0 for no names."""
    outcomes = [bool(test(name)) for name in names]
    return sum(outcomes) / len(outcomes) if outcomes else 0.0
