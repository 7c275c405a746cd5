"""expression/spaces.py: named meanings of beta."""

from export3d.expression.spaces import BETA_DIM, SPACES


def test_beta_has_64_numbers_in_every_space() -> None:
    assert BETA_DIM == 64
    assert all(0 < space.used <= BETA_DIM for space in SPACES.values())


def test_spaces_are_found_by_their_own_names_and_explain_themselves() -> None:
    assert {"ict64", "bfm64", "arkit52"} <= set(SPACES)
    assert all(name == space.name and space.description for name, space in SPACES.items())
