"""Where in the user's data folder the images of a published set lie.

DATA/<set>/train/{rain,clean} and DATA/<set>/test/{rain,clean} is the published layout. A set of which only pairs are
there, DATA/<set>/{rain,clean}, trains on their rainy images and on clean images of other scenes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rgsud_lib.data.published import plain, published_set, published_sets
from rgsud_lib.data.sources import CLEAN_FOLDERS, RAIN_FOLDERS
from rgsud_lib.errors import DataError


@dataclass(frozen=True)
class SetFolders:
    """What `prepare` takes, for a set of that name."""

    name: str
    rainy: str
    clean: str
    paired: str


def find_sets(data: Path, names: Sequence[str], clean: Path | None = None) -> tuple[list[SetFolders], list[str]]:
    """The folders of those sets that are below `data`, and the names of those that are not.

    `clean`: clean training images in place of the set's own. Raises DataError: no such folder, none of the sets is
    there (the layout is told), a set without clean training images.
    """
    if not data.is_dir():
        raise DataError(f"--data {data}: no such folder; give the one that holds a folder for each set")
    folders = {plain(folder.name): folder for folder in sorted(data.iterdir()) if _visible(folder)}
    found, absent = [], []
    for name in names:
        known = published_set(name)
        folder = next((folders[key] for key in map(plain, (known.name, *known.aliases)) if key in folders), None)
        if folder is None:
            absent.append(known.name)
        else:
            found.append(_folders(known.name, folder, clean, data))
    if not found:
        others = [known.name for known in published_sets() if plain(known.name) in folders]
        hint = ", ".join(folder.name for folder in folders.values()) or "nothing"
        hint += f"; --on {others[0]} takes what is there" if others else ""
        raise published_set(absent[0]).absent(str(data), hint)
    return found, absent


def _folders(name: str, folder: Path, clean: Path | None, data: Path) -> SetFolders:
    test = folder / "test" if (folder / "test").is_dir() else folder
    train = folder / "train" if (folder / "train").is_dir() else folder
    rainy, target = _part(train, RAIN_FOLDERS), _part(test, CLEAN_FOLDERS)
    if rainy is None or target is None or _part(test, RAIN_FOLDERS) is None:
        raise published_set(name).absent(str(folder), ", ".join(sorted(child.name for child in folder.iterdir())))
    own = _part(train, CLEAN_FOLDERS)
    if clean is None and train == test:
        own = None  # the pairs' clean images are for the evaluation alone
        others = sorted(child for child in data.iterdir() if _visible(child) and child.name.startswith("clean"))
        clean = others[0] if len(others) == 1 else None
    clean = clean or own
    if clean is None:
        raise DataError(
            f"{folder} has pairs only, whose clean images may not be trained on; give clean photographs of other "
            f"scenes: --clean DIR, or one folder {data}/clean*"
        )
    return SetFolders(name, str(rainy), str(clean), str(test))


def _part(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _visible(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")
