"""What every part that handles jobs takes for granted."""

from __future__ import annotations

from uuid import uuid5

from hypothesis import given
from hypothesis import strategies as st

from worker.contract.job import NAMESPACE, derived_id


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_derived_id_is_the_uuid_of_its_name(name: str) -> None:
    """Consumers drop repeats by these ids: they are the UUIDv5 that the standard library says, for every name."""
    assert derived_id(name.encode()) == str(uuid5(NAMESPACE, name))
