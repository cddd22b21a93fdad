"""What the user must know before the labels are believed."""

from uce.annotation.guessing import SMALL_LABEL
from uce.annotation.labelling import SHARE, Labelling, attractors, shifts, small_labels
from uce.annotation.sources import Side
from uce.files import shorten

_LOW_COUNTS = 0.5
_SHIFT = 0.2
_BY_CASE = 0.5


def warnings_of(found: Labelling, query: Side, reference: Side) -> list[str]:
    """What the user must know before the labels are believed, most important first."""
    said = [*_about_trust(found), *_about_labels(found)]
    if same := _in_both(found, query):
        said.append(
            f"{same:,} cells of the query have the vector of a reference cell, and vote for themselves if they are the "
            f"same: believe the held-out scores."
        )
    for side in (query, reference):
        said += [f"{side.given.name}: {text}" for text in _about_counts(side)]
    missing = int((~found.there).sum())
    if missing:
        said.append(f"{missing:,} cells of the query have no vector (no known gene is expressed) and get no label.")
    if found.guesses.votes.note:
        said.append(found.guesses.votes.note)
    return said


def _in_both(found: Labelling, query: Side) -> int:
    """How many query cells have exactly the vector of a reference cell."""
    known = {row.tobytes() for row in found.reference.vectors}
    return sum(row.tobytes() in known for row in query.vectors[found.there])


def _about_trust(found: Labelling) -> list[str]:
    said = []
    if not found.calibrated:
        said.append(
            f"nothing could be calibrated: {_why_not(found)}. The column is a share of the vote, not a probability."
        )
        if found.share is None:
            said.append(
                "no cell is called unknown, as no threshold can be chosen without held-out donors; --unknown 0.05 "
                "takes one from other cells of the same donors, which calls too many cells of another donor unknown."
            )
    shift, usual = shifts(found)
    if shift > max(_SHIFT, usual):
        parts = "donors" if found.held_out.donors else "folds of cells"
        said.append(
            f"the query lies further from the reference than its own {parts} from each other (KS distance {shift:.2f}, "
            f"between {parts} {usual:.2f} at most): another assay, tissue or species, or types that the reference "
            f"lacks. Confidence is too high there, and more than {found.share or SHARE:.0%} of the right labels may be "
            f"called unknown."
        )
    return said


def _why_not(found: Labelling) -> str:
    if found.held_out.donors:
        return f"only {int(found.held_out.learnable.sum())} reference cells could be held out"
    if found.reference.groups is None:
        return "no column of donors was given (--group-key)"
    return "; ".join(note for note in found.held_out.split.notes if "copies" not in note)


def _about_labels(found: Labelling) -> list[str]:
    said = []
    if small := small_labels(found.reference):
        shown = shorten([f"{label} ({n})" for label, n in small.items()])
        said.append(f"labels with fewer than {SMALL_LABEL} reference cells, whose scores say little: {shown}.")
    if often := attractors(found):
        shown = shorten([f"{label} ({times:.0f} x)" for label, times in often.items()])
        said.append(f"given far more often than it occurs in the reference, so look at these cells: {shown}.")
    alone = int((~found.held_out.learnable).sum())
    if alone:
        said.append(f"{alone:,} reference cells have a label that no other donor has; nothing is known of how it does.")
    return said


def _about_counts(side: Side) -> list[str]:
    record = side.record
    said = []
    for species, facts in dict(record.get("genes", {})).items():
        if float(facts["counts_resolved"]) < _LOW_COUNTS:
            said.append(f"only {facts['counts_resolved']:.0%} of the counts lie in genes that the model knows.")
        if facts["reasons"].get("case", 0) > _BY_CASE * facts["resolved"]:
            said.append(
                f"most names are genes of {species} only when upper and lower case are not told apart; is the species "
                f"right (--{'' if side.given.role == 'query' else 'reference-'}species)?"
            )
    if str(record.get("counts_policy")) == "as-is":
        said.append("values were taken as they are; normalised values give other vectors than counts.")
    said += [str(note) for note in record.get("notes", []) if "log1p" in str(note)]
    return said
