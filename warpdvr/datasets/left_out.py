"""Leave out views that are damaged: one bad item does not cost the set, and none is lost in silence."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

SHOWN = 10
"""The most views that a refusal names."""


class LeftOut:
    """The views of a data set that cannot be used, and why.

    Fewer than one view in ten may be left out: none of ten or fewer, one of eleven to twenty. A view that is missing
    from a few leaves a gap, and a set in which more are damaged is better repaired than fitted.
    """

    def __init__(self, folder: Path, names: Sequence[str]):
        """Begin with all views kept; `names` are those of their pictures, for the summary."""
        self.folder = folder
        self.names = names
        self.reasons: dict[int, str] = {}
        self.dropped: set[int] = set()

    @property
    def kept(self) -> tuple[int, ...]:
        """The numbers of the views that are used."""
        return tuple(i for i in range(len(self.names)) if i not in self.reasons and i not in self.dropped)

    @contextmanager
    def trying(self, i: int) -> Iterator[None]:
        """Leave out view i if the block raises ValueError."""
        try:
            yield
        except ValueError as error:
            self.reasons[i] = str(error)

    def drop_unpictured_test(self, held_out: Sequence[bool]) -> None:
        """Drop all held-out views if none of them can be used: a test split that came without its pictures."""
        test = {i for i, held in enumerate(held_out) if held}
        if not test or test == set(range(len(self.names))) or not test <= self.reasons.keys():
            return
        warnings.warn(
            f"{self.folder}: none of the {len(test)} held-out views can be used, so the split of the data is left out: "
            f"{self.reasons[min(test)]}",
            stacklevel=2,
        )
        self.dropped |= test
        self.reasons = {i: reason for i, reason in self.reasons.items() if i not in test}

    def check(self) -> None:
        """Refuse the data set if too many views cannot be used.

        Raises:
            ValueError: if they are one in ten or more.
        """
        n, count = len(self.names) - len(self.dropped), len(self.reasons)
        if 10 * count < n:
            return
        reasons = [self.reasons[i] for i in sorted(self.reasons)]
        if count == 1:
            raise ValueError(reasons[0])
        if count == n:
            raise ValueError(f"{reasons[0]} (none of the {n} views can be used)")
        more = f"; and {count - SHOWN} more" if count > SHOWN else ""
        raise ValueError(
            f"{self.folder}: {count} of {n} views cannot be used, expected fewer than one in ten; repair them or take "
            f"them out of the camera file: {'; '.join(reasons[:SHOWN])}{more}"
        )

    def warn(self) -> str:
        """Warn of the views that are left out, if there are any, and return a sentence on them for the summary."""
        if not self.reasons:
            return ""
        n = len(self.names) - len(self.dropped)
        left_out = f"{len(self.reasons)} of {n} views left out"
        reasons = "; ".join(self.reasons[i] for i in sorted(self.reasons))
        warnings.warn(f"{self.folder}: {left_out}: {reasons}", stacklevel=2)
        return f" {left_out}: {', '.join(self.names[i] for i in sorted(self.reasons))}."
