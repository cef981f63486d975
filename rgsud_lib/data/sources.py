"""Which files a dataset is made from: the three locations checked against each other, the pairs matched by name.

Everything here needs names only, so that a mistake is told before the first picture is decoded.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

from rgsud_lib.data.decode import SUFFIXES
from rgsud_lib.errors import DataError
from rgsud_lib.storage.listing import SourceFile, canonical, list_files

RAIN_FOLDERS = ("rain", "rainy", "input")
CLEAN_FOLDERS = ("clean", "gt", "target", "norain")


@dataclass(frozen=True)
class Sources:
    """Image files by role; `pairs` holds (name, rainy file, clean file)."""

    rainy: list[SourceFile]
    clean: list[SourceFile]
    pairs: list[tuple[str, SourceFile, SourceFile]]
    warnings: list[str]


def find_sources(rainy: str, clean: str, paired: str | None) -> Sources:
    """List the locations. Raises DataError: missing, without images, the same or inside each other, unmatched pairs."""
    _check_apart(rainy, clean, paired)
    warnings: list[str] = []
    rainy_files = list_images(rainy, "rainy", warnings)
    clean_files = list_images(clean, "clean", warnings)
    pairs = match_pairs(paired, list_images(paired, "paired", warnings)) if paired else []
    return Sources(rainy_files, clean_files, pairs, warnings)


def _check_apart(rainy: str, clean: str, paired: str | None) -> None:
    """Rainy and clean must not overlap, nor contain the paired set (whose rain/ may well be the rainy folder)."""
    first, second = canonical(rainy), canonical(clean)
    if first == second:
        raise DataError(f"rainy and clean are the same folder ({rainy}); give rainy images in one, clean in another")
    nested = [("rainy", rainy, "clean", clean), ("clean", clean, "rainy", rainy)]
    nested += [("rainy", rainy, "paired", paired), ("clean", clean, "paired", paired)] if paired else []
    for outer_role, outer, inner_role, inner in nested:
        if f"{canonical(inner)}/".startswith(f"{canonical(outer)}/"):
            what = f"the {outer_role} folder {outer} contains the {inner_role} folder {inner}"
            raise DataError(f"{what}; give separate folders")


def list_images(location: str, role: str, warnings: list[str]) -> list[SourceFile]:
    """The images at a location; `warnings` gains a line on other files. Raises DataError: no images."""
    files = list_files(location)
    images = [file for file in files if file.name.lower().endswith(SUFFIXES)]
    if not images:
        found = f"{len(files)} other files, such as {files[0].name!r}" if files else "nothing"
        raise DataError(f"no images in the {role} folder {location} (found {found}); expected {', '.join(SUFFIXES)}")
    if len(images) < len(files):
        others = [file.name for file in files if not file.name.lower().endswith(SUFFIXES)]
        warnings.append(f"{role}: files ignored, as their suffix is no image's: {len(others)}, such as {others[0]}")
    return images


def match_pairs(location: str, files: list[SourceFile]) -> list[tuple[str, SourceFile, SourceFile]]:
    """Pair rain/X with clean/X by stem, or else by `published_key`, as (name, rainy, clean). Raises DataError."""
    rain, clean = _side(location, files, RAIN_FOLDERS), _side(location, files, CLEAN_FOLDERS)
    exact = _by_key(rain, str), _by_key(clean, str)
    for first, second in (exact, (_by_key(rain, published_key), _by_key(clean, published_key))):
        unique = all(len(group) == 1 for side in (first, second) for group in side.values())
        if unique and first.keys() == second.keys():
            return [(key, first[key][0], second[key][0]) for key in sorted(first)]
    rule = "every rainy image needs one clean image of the same name"
    raise DataError(f"paired folder {location}: {_mismatch(*exact)}; {rule}")


def _side(location: str, files: list[SourceFile], names: tuple[str, ...]) -> list[SourceFile]:
    folders = {folder for file in files if "/" in file.name and (folder := file.name.split("/")[0]).lower() in names}
    if len(folders) != 1:
        found = f"both {' and '.join(sorted(folders))}" if folders else "none of them"
        rule = f"expected one subfolder named {', '.join(names)}"
        raise DataError(f"paired folder {location} has {found} with images; {rule}")
    return [file for file in files if file.name.split("/")[0] in folders]


def _by_key(files: list[SourceFile], key: Callable[[PurePosixPath], str]) -> dict[str, list[SourceFile]]:
    groups: dict[str, list[SourceFile]] = defaultdict(list)
    for file in files:
        below = PurePosixPath(*PurePosixPath(file.name).parts[1:])
        groups[key(below.with_suffix(""))].append(file)
    return groups


def published_key(path: PurePosixPath) -> str:
    """What both sides of a published Rain100 pair share: sub/rain-001, sub/norain-001 and sub/001x2 give sub/001."""
    return str(path.with_name(re.sub(r"x2$", "", re.sub(r"^(no)?rain-", "", path.name))))


def _mismatch(rain: dict[str, list[SourceFile]], clean: dict[str, list[SourceFile]]) -> str:
    def some(names: set[str]) -> str:
        return ", ".join(sorted(names)[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")

    alone, lonely = rain.keys() - clean.keys(), clean.keys() - rain.keys()
    twice = {name for side in (rain, clean) for name, group in side.items() if len(group) > 1}
    found = (("only rainy:", alone), ("only clean:", lonely), ("twice:", twice))
    return "; ".join(f"{what} {some(names)}" for what, names in found if names)
