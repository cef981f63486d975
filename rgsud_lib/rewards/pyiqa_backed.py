"""Any no-reference metric of the pyiqa toolbox as a scorer: `pyiqa:musiq`, `pyiqa:topiq_nr`, `pyiqa:clipiqa`, ...

pyiqa and most of the weights it fetches are for non-commercial use only, so it is an optional dependency: the user
installs it. Its checkpoints are read as bare weights (torch's weights_only), never as pickled code.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import hashlib
import importlib.util
import io
import logging
import os
import pickle
import socket
import threading
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from rgsud_lib.config import digest_of
from rgsud_lib.data.images import check_images
from rgsud_lib.errors import BundleError, ConfigError, DataError

logger = logging.getLogger("rgsud")

LIST_ALL = "python -c \"import pyiqa; print(*pyiqa.list_models('NR'))\""
UNFIT = {
    **dict.fromkeys(("fid", "fid_dinov2", "sfid", "inception_score"), "it scores sets of images, not one image"),
    "clipscore": "it needs a caption for every image",
    **dict.fromkeys(("compare2score", "qalign", "qalign_4bit", "qalign_8bit"), "it runs code that it downloads"),
}
REMEDY = (
    "the weights of pyiqa:{0} cannot be loaded; where there is network, run python -c "
    "\"import pyiqa; pyiqa.create_metric('{0}')\" and copy ~/.cache/torch/hub and ~/.cache/huggingface from there"
)
ANSWER_SECONDS = 5.0


class PyiqaScorer:
    """Scorer `pyiqa:<metric>`; the score is negated where pyiqa says that lower is better."""

    license = "non-commercial use only (PolyForm Noncommercial 1.0.0 and S-Lab License 1.0)"

    def __init__(self, metric: str, device: str | torch.device = "cpu") -> None:
        """Build the metric; missing weights are fetched into pyiqa's own caches where the hub answers.

        Raises ConfigError where pyiqa is not installed or has no such no-reference metric, and
        BundleError for weights that are missing and cannot be fetched, or hold more than weights.
        """
        if importlib.util.find_spec("pyiqa") is None:
            raise ConfigError(f"pyiqa:{metric} needs pyiqa, which is not installed: pip install pyiqa")
        _warn_of_license()
        self.name = f"pyiqa:{metric}"
        with _quiet(), _seeded():
            self.model = _build(metric, torch.device(device))
            import pyiqa
        self.higher_is_better = not self.model.lower_better
        self.version = digest_of({"metric": metric, "pyiqa": pyiqa.__version__, "weights": _digest(self.model.net)})

    def __call__(self, output: Tensor, rainy: Tensor | None = None) -> Tensor:
        """Scores of `output`, B x 3 x H x W in [0,1], one image at a time; `rainy` is not looked at.

        Raises TypeError or ValueError on bad images, DataError on sizes that the metric cannot score.
        """
        check_images(output, "output")
        scores = [self._score(image[None]) for image in output.detach().float().clamp(0, 1)]
        return torch.tensor(scores, dtype=torch.float32)

    def _score(self, image: Tensor) -> float:
        try:
            with _quiet(), _seeded(self.model.device):
                score = self.model(image).item()
        except torch.OutOfMemoryError:
            raise
        except (AssertionError, LookupError, ValueError, RuntimeError) as error:
            height, width = image.shape[2:]
            raise DataError(f"{self.name} cannot score {height} x {width} pixels; try larger ones: {error}") from error
        return score if self.higher_is_better else -score


def _build(metric: str, device: torch.device) -> nn.Module:
    try:
        import huggingface_hub
        import pyiqa
        from pyiqa.utils import download_util
    except ImportError as error:
        raise ConfigError(f"pyiqa:{metric}: pyiqa cannot be imported ({error}); pip install --upgrade pyiqa") from error
    _check_metric(metric, pyiqa.list_models("NR"), pyiqa.list_models())
    hub = huggingface_hub.constants
    online = not hub.HF_HUB_OFFLINE and _online(hub.ENDPOINT)
    fetch = functools.partial(_fetch, torch.hub.download_url_to_file, online)
    timeout = socket.getdefaulttimeout()
    with (
        mock.patch.object(torch.hub, "download_url_to_file", fetch),
        mock.patch.object(download_util, "download_url_to_file", fetch),
        mock.patch.object(urllib.request, "urlopen", urllib.request.urlopen if online else _refuse),
        mock.patch.object(hub, "HF_HUB_OFFLINE", not online),
        mock.patch.dict(os.environ, TORCH_FORCE_WEIGHTS_ONLY_LOAD="1"),
    ):
        socket.setdefaulttimeout(2 * ANSWER_SECONDS)
        try:
            return pyiqa.create_metric(metric, device=device).eval()
        except pickle.UnpicklingError as error:
            raise BundleError(f"a checkpoint of pyiqa:{metric} holds more than weights: {error}") from error
        except (OSError, ValueError) as error:  # the hub's and transformers' errors are both
            raise BundleError(f"{REMEDY.format(metric)}: {_first_cause(error)}") from error
        finally:
            socket.setdefaulttimeout(timeout)


def _check_metric(metric: str, suitable: list[str], known: list[str]) -> None:
    if metric in UNFIT:
        raise ConfigError(f"pyiqa:{metric} cannot be a scorer: {UNFIT[metric]}; list the others with {LIST_ALL}")
    if metric in suitable:
        return
    if metric in known:
        raise ConfigError(f"pyiqa:{metric} compares with a clean image, which no scorer gets; list others: {LIST_ALL}")
    near = difflib.get_close_matches(metric, [name for name in suitable if name not in UNFIT], n=3)
    hint = f"did you mean {', '.join(near)}? " if near else ""
    raise ConfigError(f"pyiqa has no metric {metric!r}; {hint}list all with {LIST_ALL}")


def _fetch(
    download: Any, online: bool, url: str, target: str, hash_prefix: str | None = None, progress: bool = False
) -> None:
    """Instead of torch.hub's download_url_to_file: says what it does, and gives up at once where it cannot."""
    if not online:
        raise BundleError(f"{target} is missing and there is no network: put the file from {url} there")
    logger.info("downloading %s to %s", url, target)
    try:
        download(url, target, hash_prefix, progress=False)
    except OSError as error:
        raise BundleError(f"{target} is missing; put the file from {url} there: fetching it failed: {error}") from error


def _refuse(url: str) -> None:
    """Instead of urlopen, with which CLIP's two loaders fetch."""
    folders = f"{torch.hub.get_dir()}/clip and ~/.cache/clip"
    raise BundleError(f"{Path(url).name} is missing and there is no network: put the file from {url} into {folders}")


def _online(address: str) -> bool:
    """Whether the hub answers within five seconds; asked in a thread, because name resolution has no timeout."""
    answered = threading.Event()

    def ask() -> None:
        request = urllib.request.Request(address, method="HEAD")
        with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=ANSWER_SECONDS):
            answered.set()

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(ANSWER_SECONDS)
    return answered.is_set()


def _first_cause(error: BaseException) -> BaseException:
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """pyiqa and what it imports print, log and warn of their own internals."""
    heard = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _seeded(device: torch.device | None = None) -> Iterator[None]:
    """Random numbers of torch start from 0 inside and go on outside as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[device] if device is not None and device.type == "cuda" else []):
        torch.manual_seed(0)
        yield


@functools.cache
def _warn_of_license() -> None:
    logger.warning("pyiqa is licensed for %s; many of its weights are, too", PyiqaScorer.license)


def _digest(network: nn.Module) -> str:
    """SHA-256 of parameters and buffers, and of the arrays, files and numbers that modules keep beside them."""
    digest = hashlib.sha256()
    for key, value in network.state_dict().items():
        _add(digest, key, value)
    for path, module in network.named_modules():
        for key, value in sorted(vars(module).items()):
            if not key.startswith("_") and key != "training":
                _add(digest, f"{path}.{key}", value)
    return digest.hexdigest()


def _add(digest: Any, key: str, value: Any) -> None:
    if isinstance(value, np.ndarray) and value.dtype.hasobject:  # what MATLAB files nest
        value = value.tolist()
    if isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _add(digest, f"{key}.{index}", item)
    elif isinstance(value, nn.Module):  # hidden from its parent in a list, as CLIP is
        digest.update(f"{key}={_digest(value)}".encode())
    elif isinstance(value, Tensor):
        digest.update(key.encode() + value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    elif isinstance(value, np.ndarray):
        digest.update(key.encode() + value.tobytes())
    elif isinstance(value, str) and os.path.isabs(value) and os.path.isfile(value):
        digest.update(key.encode() + Path(value).read_bytes())
    elif isinstance(value, int | float):
        digest.update(f"{key}={value!r}".encode())
