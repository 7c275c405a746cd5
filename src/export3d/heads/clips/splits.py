"""Train, validation and test identities as fixed seed ranges: no test head is ever trained on."""

from __future__ import annotations

from export3d.checks import check_choice
from export3d.errors import UsageError

SPLITS: dict[str, range] = {
    "train": range(0, 1_000_000),
    "validation": range(1_000_000, 1_000_100),
    "test": range(2_000_000, 2_000_100),
}
"""Identity seeds of each split. Validation and test hold 100 identities each; no seed is in two splits."""


def identity_seeds(split: str, first: int, count: int) -> list[int]:
    """The identity seeds number `first`, `first + 1`, ... of a split.

    Args:
        split: ``train``, ``validation`` or ``test``.
        first: Position inside the split, from 0. Two renders with other positions share no identity.
        count: How many identities, at least 1.

    Raises:
        UsageError: Unknown split, a negative position, or more identities than the split has.
    """
    seeds = SPLITS[check_choice("--split", split, SPLITS)]
    if count < 1:
        raise UsageError(f"--identities: expected at least 1; got {count}.")
    if first < 0 or first + count > len(seeds):
        raise UsageError(
            f"--seed/--identities: split '{split}' has identities 0 to {len(seeds) - 1}; got {first} to "
            f"{first + count - 1}. Ask for fewer identities or a smaller --seed."
        )
    return list(seeds[first : first + count])


def split_of(seed: int) -> str | None:
    """The split that owns an identity seed, or None for a seed that belongs to none."""
    return next((name for name, seeds in SPLITS.items() if seed in seeds), None)
