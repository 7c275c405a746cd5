"""checks.py and errors.py: error texts that a user reads, and one exit code for each kind of error."""

import inspect

import pytest
import torch

from export3d import errors
from export3d.checks import check_choice, check_shape
from export3d.errors import Export3DError, UsageError


def test_a_fitting_shape_passes_and_none_stands_for_any_size() -> None:
    check_shape("beta", torch.zeros(3, 64), None, 64)


def test_a_wrong_shape_names_the_argument_the_expected_and_the_given_shape() -> None:
    with pytest.raises(ValueError, match=r"^beta must have shape \(\*, 64\); got \(3, 63\)$"):
        check_shape("beta", torch.zeros(3, 63), None, 64)


def test_a_wrong_number_of_dimensions_is_an_error_too() -> None:
    with pytest.raises(ValueError, match=r"beta must have shape \(\*, 64\); got \(64,\)"):
        check_shape("beta", torch.zeros(64), None, 64)


def test_a_known_choice_is_returned() -> None:
    assert check_choice("preset", "small", {"small", "paper"}) == "small"


def test_a_misspelt_choice_suggests_the_nearest_and_lists_all() -> None:
    with pytest.raises(UsageError) as error:
        check_choice("preset", "papre", ["small", "paper", "tiny"])
    assert str(error.value) == (
        "preset: 'papre' is not known. Did you mean 'paper'? Choose one of: paper, small, tiny."
    )


def test_a_choice_like_nothing_known_gets_no_suggestion() -> None:
    with pytest.raises(UsageError) as error:
        check_choice("preset", "zzzz", ["small", "paper"])
    assert str(error.value) == "preset: 'zzzz' is not known. Choose one of: paper, small."


def _error_classes() -> list[type[Export3DError]]:
    found = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, Export3DError)]
    return [c for c in found if c is not Export3DError]


def test_each_kind_of_error_has_its_own_exit_code() -> None:
    codes = [c.exit_code for c in _error_classes()]
    assert len(codes) >= 15
    assert len(set(codes)) == len(codes), sorted(codes)


def test_exit_codes_can_be_told_from_success_crash_and_signals() -> None:
    # 0 is success, 1 an unforeseen crash, 126 and above belong to the shell and to signals (130 is Ctrl-C).
    assert all(2 <= c.exit_code < 126 for c in _error_classes())
