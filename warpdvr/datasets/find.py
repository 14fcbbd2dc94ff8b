"""Find the files that a camera file names, also if it was written on another system or in another place."""

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from warpdvr.runtime.files import links_allowed, path_inside

MOST_FILES = 200_000
"""The most files of a folder that are looked at."""


def is_clutter(name: str) -> bool:
    """Return whether a file is left by a system beside the data: `._x`, `.DS_Store`, `Thumbs.db`, `desktop.ini`."""
    return name.startswith(".") or name.lower() in ("thumbs.db", "desktop.ini")


def folded(name: str) -> str:
    """Return a name such that names which differ in case or in the form of their accents alone are equal."""
    return unicodedata.normalize("NFC", name).casefold()


class Finder:
    """Finds named files in a data set.

    A name is looked for as it is written, then with backslashes as slashes and without regard to case and to the form
    of accents. An absolute path, of another machine or another place, is found by the longest tail that it shares with
    a file in the folder: two parts at least, or the name of a file alone in one of `subfolders`. A relative one may
    lead there through folders that are gone, then two parts must be shared as well.
    """

    def __init__(self, folder: Path, subfolders: Sequence[str] = ("",), suffixes: Sequence[str] = ("",)):
        """Look into a folder.

        Args:
            folder: the data set.
            subfolders: where relative names begin, in this order; "" is the folder itself.
            suffixes: what may be missing at the end of a name; "" for names that are complete.
        """
        self.folder = folder
        self.subfolders = subfolders
        self.suffixes = suffixes
        self.moved = 0
        """How many files were found by the end of their path."""
        self._files: dict[str, list[tuple[str, ...]]] | None = None

    def find(self, name: str) -> Path | None:
        """Return the file of that name, or None.

        Raises:
            ValueError: if the name leads out of the folder, or several files fit it equally well.
        """
        name = name.removeprefix("\ufeff")
        outside: ValueError | None = None
        for spelling in dict.fromkeys((name, name.replace("\\", "/"))):
            try:
                if found := self._as_written(spelling):
                    return found
            except ValueError as error:
                outside = error
        parts = _parts(name)
        absolute = name.startswith(("/", "\\")) or name[1:2] == ":"
        if ".." not in parts and (found := self._by_tail(parts, absolute)):
            return found
        if outside is not None:
            raise outside
        return None

    def _as_written(self, name: str) -> Path | None:
        candidates = (
            path_inside(self.folder, Path(subfolder) / f"{name}{suffix}")
            for subfolder in self.subfolders
            for suffix in self.suffixes
        )
        return next((f for f in candidates if _is_file(f)), None)

    def _by_tail(self, parts: tuple[str, ...], absolute: bool) -> Path | None:
        """Return the file that shares the longest tail with a path."""
        if not parts:
            return None
        stored, wanted = self._index(), tuple(map(folded, parts))
        roots = [tuple(map(folded, PurePosixPath(subfolder).parts)) for subfolder in self.subfolders]
        best: list[tuple[str, ...]] = []
        longest = 0
        for suffix in self.suffixes:
            target = (*wanted[:-1], folded(parts[-1] + suffix))
            for file in stored.get(target[-1], []):
                keys = tuple(map(folded, file))
                shared = next((k for k, (a, b) in enumerate(zip(keys[::-1], target[::-1], strict=False)) if a != b), 99)
                shared = min(shared, len(keys), len(target))
                whole = any(keys == (*root, *target) for root in roots)
                alone = absolute and shared == 1 and keys[:-1] in roots
                score = 1000 if whole else shared if shared > 1 or alone else 0
                if score > longest:
                    best, longest = [file], score
                elif score == longest and score > 0:
                    best.append(file)
        if len(best) > 1:
            names = " and ".join("/".join(file) for file in best[:2])
            raise ValueError(f"{self.folder}: {'/'.join(parts)!r} fits several files, such as {names}; rename one")
        if not best:
            return None
        self.moved += longest < 1000
        return path_inside(self.folder, Path(*best[0]))

    def _index(self) -> dict[str, list[tuple[str, ...]]]:
        """Return the parts of the paths of all files in the folder, by the folded name of the file."""
        if self._files is None:
            self._files, count = {}, 0
            for home, _, names in os.walk(self.folder, followlinks=links_allowed()):
                parts = Path(home).relative_to(self.folder).parts
                for name in names:
                    if not is_clutter(name):
                        self._files.setdefault(folded(name), []).append((*parts, name))
                count += len(names)
                if count > MOST_FILES:
                    break
        return self._files


def _parts(name: str) -> tuple[str, ...]:
    """Return the parts of a path of any system, without its root or drive."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return tuple(part for i, part in enumerate(parts) if part != "/" and part != "//" and not (i == 0 and ":" in part))


def _is_file(path: Path) -> bool:
    """Return whether a file exists; also where its name is too long, or its links go round in circles."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
