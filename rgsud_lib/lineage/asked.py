"""What a person means by a model, a run, a stage's folder, a workdir, a digest or a folder of photographs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from rgsud_lib.bundle import MARKER, Bundle
from rgsud_lib.errors import BundleError, RegistryError
from rgsud_lib.lineage import RAW, Name, Place, inputs_of, name_of, newest_first, read, workdir_of
from rgsud_lib.lineage.memory import Version
from rgsud_lib.lineage.shelf import Shelf
from rgsud_lib.stages import STAGES
from rgsud_lib.storage.listing import canonical
from rgsud_lib.storage.remote import find as find_remote
from rgsud_lib.storage.s3 import is_remote

MODELS = (".safetensors", ".onnx")
LEAST = 6  # digits of a digest that is cut short
EXPECTED = (
    "expected a model file, a stage's folder or s3:// address, a workdir, an MLflow run id, models:/rgsud@champion, "
    "models:/rgsud/3, a digest, or the folder or prefix that a dataset was made from"
)


def own_workdir(asked: str) -> list[Place]:
    """The workdir that a path or address is, or lies in."""
    if asked.startswith("models:/"):
        return []
    if is_remote(asked):
        return [workdir_of(asked) or asked]
    path = Path(canonical(asked))
    candidates = (path, workdir_of(path.parent if path.is_file() else path))
    return next(([workdir] for workdir in candidates if (workdir / "stages").is_dir()), [])


def find(asked: str, shelf: Shelf, versions: dict[Name, Version]) -> list[Name]:
    """The names of what `asked` means; bundles that lie elsewhere join the shelf. Raises BundleError: nothing known."""
    if asked.startswith("models:/"):
        return [_version(asked, versions, shelf)]
    if re.fullmatch(r"[0-9a-f]{32}", asked) and shelf.memory and not Path(asked).exists():
        try:
            return [shelf.memory.made_by(asked)]
        except RegistryError as error:
            raise BundleError(f"{asked} is no run that MLflow knows ({error})") from None
    place = canonical(asked)
    raw = list(_read_from(place, shelf))
    if raw and is_remote(place):  # which this machine need not be able to read
        return list(dict.fromkeys(raw))
    if bundle := _bundle_at(place):
        return [shelf.put(bundle)]
    if not is_remote(place) and Path(place).is_file():
        return [_of_file(Path(place), shelf)]
    if stage := _newest(place):
        return [stage]
    found = list(dict.fromkeys([*_with_digest(asked, shelf), *raw]))
    if not found:
        raise BundleError(f"{asked}: nothing is known of it in {', '.join(shelf.workdirs)}; {EXPECTED}")
    return found


def _version(asked: str, versions: dict[Name, Version], shelf: Shelf) -> Name:
    from rgsud_lib.registry import NAME

    which = re.fullmatch(rf"models:/{NAME}(?:@|/)([\w-]+)", asked)
    for name, version in versions.items():
        if which and which[1] in (version.number, *version.aliases):
            return name
    known = ", ".join(f"models:/{NAME}/{version.number}" for version in versions.values())
    raise BundleError(f"{asked} is no version of the registry; there are {known or 'none'}. {' '.join(shelf.notes)}")


def _bundle_at(place: str) -> Bundle | None:
    """The bundle of a folder or address, or the one that a file of a bundle belongs to; in S3 payload lies deeper."""
    if not is_remote(place):
        folder = Path(place) if Path(place).is_dir() else Path(place).parent
        return read(folder) if (folder / MARKER).is_file() else None
    candidates = [place, *(place.rsplit("/", up)[0] for up in (1, 2) if place.endswith(MODELS))]
    return next((found for address in candidates if (found := find_remote(address))), None)


def _of_file(file: Path, shelf: Shelf) -> Name:
    """A model file on its own: what it says of itself, and the export that has its weights."""
    facts = _metadata(file)
    weights = facts.get("weights_digest")
    for name, bundle in shelf.bundles.items():
        if weights and bundle.facts.get("weights_digest") == weights:
            return name
    inputs = {kind: facts[f"{kind}_digest"] for kind in ("dataset", "reinforced") if f"{kind}_digest" in facts}
    if not inputs:
        raise BundleError(f"{file} does not say what it was made from, and no bundle has its weights; {EXPECTED}")
    return shelf.put(Bundle(file, "file", str(weights)[:16], "", inputs, {"weights_digest": str(weights)}))


def _metadata(file: Path) -> dict[str, str]:
    from google.protobuf.message import DecodeError
    from safetensors import SafetensorError, safe_open

    try:
        if file.suffix == ".onnx":
            import onnx

            return {item.key: item.value for item in onnx.load(file, load_external_data=False).metadata_props}
        from rgsud_lib.inference.model_file import METADATA

        with safe_open(file, framework="pt") as opened:
            return json.loads((opened.metadata() or {}).get(METADATA, "{}"))
    except (SafetensorError, DecodeError, OSError, ValueError) as error:
        raise BundleError(f"{file} is no readable model ({error}); {EXPECTED}") from None


def _newest(workdir: str) -> Name | None:
    """The newest export of a workdir, else the bundle that is nearest to one."""
    if not is_remote(workdir) and not Path(workdir, "stages").is_dir():
        return None
    bundles = [bundle for _, bundle in newest_first(workdir)]
    for kind, _ in reversed(STAGES.values()):
        for bundle in bundles:
            if bundle.kind == kind:
                return name_of(bundle)
    return None


def _with_digest(asked: str, shelf: Shelf) -> Iterator[Name]:
    """Bundles, raw images and inputs of either whose digest, or a file's of theirs, begins so."""
    if not re.fullmatch(rf"[0-9a-f]{{{LEAST},64}}", asked):
        return
    for name, bundle in shelf.bundles.items():
        digests = (bundle.digest, bundle.facts.get("weights_digest", ""), bundle.files.get("manifest.json", ""))
        if any(str(digest).startswith(asked) for digest in digests):
            yield name
        yield from (wanted for wanted in inputs_of(bundle) if wanted[1].startswith(asked))


def _read_from(place: str, shelf: Shelf) -> Iterator[Name]:
    """The raw images that were read from a folder or prefix, from above or from below it."""
    for bundle in shelf.bundles.values():
        for source in bundle.facts.get("sources", {}).values():
            if f"{source}/".startswith(f"{place}/") or f"{place}/".startswith(f"{source}/"):
                yield RAW, bundle.inputs[RAW]
