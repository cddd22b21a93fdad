"""Names as text, apart from what `resolve` does with them."""

from hypothesis import given
from hypothesis import strategies as st

from uce.genes.names import sole_owners


@given(st.lists(st.tuples(st.sampled_from(["", "A", "B", "C", "D"]), st.integers()), max_size=8))
def test_a_name_is_its_owner_s_if_it_stands_once(pairs: list[tuple[str, int]]) -> None:
    names = [name for name, _ in pairs]
    assert sole_owners(iter(pairs)) == {name: owner for name, owner in pairs if name and names.count(name) == 1}
