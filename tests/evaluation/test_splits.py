"""Who is held out with whom: never a group on both sides, and in words where nothing can be held out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from uce.evaluation.results import NotPossible
from uce.evaluation.splits import Split, count_keys, grouped_folds, make_split

N = 60
LABELS = np.asarray(["T", "B", "NK"])[np.arange(N) % 3]
DONORS = np.char.add("d", (np.arange(N) // 10).astype(str))
DATASETS = np.asarray(["study 1", "study 2"])[np.arange(N) // 30]
ASSAYS = np.asarray(["10x", "Smart-seq"])[np.arange(N) // 10 % 2]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), min_size=2, max_size=80),
    st.booleans(),
)
@settings(max_examples=50, deadline=None)
def test_every_cell_is_held_out_once_and_no_group_is_on_both_sides(pairs: list[tuple[int, int]], random: bool) -> None:
    labels, groups = np.asarray(pairs).T.astype(str)
    try:
        split = make_split(labels, groups=groups, random_split=random)
    except NotPossible:
        return
    tested = np.zeros(len(labels), int)
    for train, test in split:
        tested += test
        assert not set(split.groups[train]) & set(split.groups[test])
        assert split.watermark or not set(groups[train]) & set(groups[test])
    assert (tested == 1).all()


def test_the_widest_key_wins() -> None:
    keys = {"datasets": DATASETS, "assays": ASSAYS, "groups": DONORS, "batches": DONORS}
    for kind in ("dataset", "assay", "donor", "batch"):
        split = make_split(LABELS, **keys)
        assert split.kind == kind
        assert kind in split.title
        del keys[next(iter(keys))]
    with pytest.raises(NotPossible, match="no column of datasets"):
        make_split(LABELS)


def test_few_donors_are_held_out_one_by_one_and_many_in_five_balanced_folds() -> None:
    few = make_split(LABELS, groups=DONORS[:50][np.arange(N) % 50])
    assert few.title == "each donor held out in turn (5 donors)"
    many = make_split(LABELS, groups=np.char.add("d", (np.arange(N) // 5).astype(str)))
    assert many.title == "5 folds of held-out donors (12 donors)"
    assert set(many.folds) == set(range(5))


def test_folds_of_many_groups_share_labels_out() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(40, size=2000)
    labels = np.where(rng.random(2000) < np.linspace(0.05, 0.95, 40)[groups], "rare", "common")
    folds = grouped_folds(labels, groups.astype(str))
    shares = [(labels[folds == fold] == "rare").mean() for fold in range(5)]
    assert max(shares) - min(shares) < 0.15


def test_donors_that_are_the_labels_are_refused_in_words() -> None:
    lines = np.asarray(["MCF7", "T47D", "BT20"])[np.arange(N) % 3]
    with pytest.raises(NotPossible, match="0 of 3 labels occur in more than one donor"):
        make_split(lines, groups=np.char.add("donor of ", lines))
    with pytest.raises(NotPossible, match="one donor only"):
        make_split(LABELS, groups=np.full(N, "d"))


def test_a_key_that_cannot_serve_gives_way_to_the_next() -> None:
    tissues = np.where(DATASETS == "study 1", np.char.add("gut ", LABELS), np.char.add("eye ", LABELS))
    split = make_split(tissues, datasets=DATASETS, groups=DONORS)
    assert split.kind == "donor"
    assert "0 of 6 labels occur in more than one dataset" in " ".join(split.notes)


def test_assays_that_share_a_donor_are_one() -> None:
    both = np.asarray(["10x", "Smart-seq"])[np.arange(N) % 2]  # every donor was measured by both
    assert make_split(LABELS, assays=both, groups=DONORS).kind == "donor"
    three = np.where(DONORS == "d5", "third", both)
    split = make_split(LABELS, assays=three, groups=DONORS)
    assert split.kind == "assay"
    assert set(split.groups) == {"10x + Smart-seq", "third"}


def test_a_random_split_must_be_asked_for_and_is_marked() -> None:
    with pytest.raises(NotPossible, match="allow a random split"):
        make_split(LABELS, groups=np.full(N, "d"))
    split = make_split(LABELS, groups=np.full(N, "d"), random_split=True)
    assert split.watermark
    assert "RANDOM" in split.title
    assert all(len(set(LABELS[test])) == 3 for _, test in split)
    assert not make_split(LABELS, groups=DONORS, random_split=True).watermark


def test_copies_in_another_fold_train_but_are_not_judged() -> None:
    counts = np.random.default_rng(0).poisson(1.0, size=(N, 30)).astype(float)
    counts[59] = counts[0]  # donors d5 and d0
    counts[2] = counts[1]  # both of d0
    split = make_split(LABELS, groups=DONORS, counts=csr_matrix(counts))
    assert np.flatnonzero(~split.judged).tolist() == [0, 59]
    assert any("2 cells have the counts of a cell in another fold" in note for note in split.notes)
    assert sum(int(train[0]) + int(train[59]) for train, _ in split) > 0
    for _, test in split:
        assert not test[[0, 59]].any()


def test_rows_with_equal_counts_have_equal_keys_however_they_are_stored() -> None:
    plain = csr_matrix(np.asarray([[1.0, 0, 2], [1, 0, 2], [2, 0, 1], [0, 0, 0]]))
    odd = csr_matrix((np.asarray([2.0, 0, 1]), np.asarray([2, 1, 0]), np.asarray([0, 3])), shape=(1, 3))
    keys = count_keys(plain)
    assert keys[0] == keys[1] == count_keys(odd)[0]
    assert len(set(keys.tolist())) == 3


def test_a_leaking_split_cannot_be_made() -> None:
    folds, judged = np.arange(N) % 2, np.ones(N, dtype=bool)
    with pytest.raises(AssertionError, match="both sides"):
        Split("donor", folds, judged, DONORS, DONORS, "leaky")
