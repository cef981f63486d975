"""A derainer and its architecture as one safetensors file, proved by a digest of the weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from rgsud_lib.config import DerainerConfig
from rgsud_lib.errors import BundleError
from rgsud_lib.files import write_bytes
from rgsud_lib.inference.onnx_model import OnnxModel

FORMAT = "rgsud-derainer-1"
METADATA = "rgsud"


def weights_digest(weights: dict[str, Tensor]) -> str:
    """SHA-256 (hex) over names, types, shapes and bytes of a state dictionary, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_derainer(derainer: nn.Module, config: DerainerConfig, path: Path, facts: dict[str, str] | None = None) -> None:
    """Write weights and architecture as one safetensors file, atomically; `facts` join the metadata."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in derainer.state_dict().items()}
    metadata = {
        **(facts or {}),
        "format": FORMAT,
        "derainer": json.dumps(config.model_dump(mode="json"), sort_keys=True),
        "weights_digest": weights_digest(weights),
    }
    # One key: safetensors writes several in random order, and equal models must be equal files.
    write_bytes(Path(path), save(weights, {METADATA: json.dumps(metadata, sort_keys=True)}))


def load_derainer(path: Path | str, device: str | torch.device = "cpu") -> nn.Module:
    """The derainer of a `.safetensors` or `.onnx` file, a stage's or an export folder, or a work folder; in eval mode.

    Raises BundleError: nothing there, not a model of this project, altered bytes, weights of another architecture.
    """
    from rgsud_lib.networks import build_derainer

    file = find_model(Path(path))
    if file.suffix == ".onnx":
        return OnnxModel(file, device)
    weights, metadata = _read_weights(file)
    if metadata.get("format") != FORMAT:
        found = metadata.get("format")
        raise BundleError(f"{file} has format {found!r}, expected {FORMAT!r}; give a model that `rgsud export` wrote")
    if weights_digest(weights) != metadata.get("weights_digest"):
        raise BundleError(f"{file} was altered after it was written (its weights' digest differs); export it again")
    try:
        model = build_derainer(DerainerConfig.model_validate_json(metadata.get("derainer", "")))
        model.load_state_dict(weights)
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise BundleError(f"{file}: weights do not fit the architecture it names ({reason}); export it again") from None
    return model.to(device).eval()


def find_model(path: Path) -> Path:
    """The model file meant by a file, stage folder, export folder or work folder. Raises BundleError."""
    if path.is_file():
        return path
    for folder in (path, path / "export"):
        if (folder / "derainer.safetensors").is_file():
            return folder / "derainer.safetensors"
        found = sorted(folder.glob("*.safetensors"))
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(file.name for file in found)
            raise BundleError(f"{folder} holds several models ({names}); name one of these files")
    raise BundleError(f"no model at {path}: expected a .safetensors file, or a folder with one in it or in its export/")


def _read_weights(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(file, framework="pt") as opened:
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dictionary)
            return weights, json.loads((opened.metadata() or {}).get(METADATA, "{}"))
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise BundleError(f"{file} is not a readable safetensors file ({error}); copy or export it again") from None
