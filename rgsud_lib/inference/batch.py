"""A folder or prefix of pictures and videos derained by several tasks at once: planned, shared out, summed up.

TARGET/.rgsud/records/ says of each output which original and which model made it. A record is written after its
output and removed before the output is made again, so what is recorded is whole, and is passed over next time.
TARGET/.rgsud/shards/ says what became of each shard, TARGET/derained.json of the whole.
"""

from __future__ import annotations

import hashlib
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rgsud_lib.config import Config, digest_of
from rgsud_lib.errors import BundleError, ConfigError, DataError
from rgsud_lib.fan_out import Shard
from rgsud_lib.files import sha256_file, write_json
from rgsud_lib.inference.address import RUNS, local_model
from rgsud_lib.inference.derainer import Derainer
from rgsud_lib.inference.folders import Worker
from rgsud_lib.inference.jobs import Job, plan
from rgsud_lib.inference.model_file import find_model
from rgsud_lib.storage import transfer
from rgsud_lib.storage.listing import canonical, list_files
from rgsud_lib.storage.s3 import is_remote

HIDDEN = ".rgsud"
SUMMARY = "derained.json"
SHOWN = 10  # failures in an error message; SUMMARY has all
logger = logging.getLogger("rgsud")


@dataclass(frozen=True)
class Share:
    """A shard of the files, and the model for all of them: `shard.sources` is the SHA-256 of the model's file.

    As text `0/4:1a2b... models:/rgsud/3`.
    """

    shard: Shard
    model: str

    @classmethod
    def parse(cls, text: str) -> Share:
        """Raises ConfigError: not what str() of a share gives."""
        shard, _, model = text.partition(" ")
        if not model:
            raise ConfigError(f"share {text!r}: expected INDEX/COUNT:DIGEST MODEL, as `plan_shares` gives it")
        return cls(Shard.parse(shard), model)

    def __str__(self) -> str:
        return f"{self.shard} {self.model}"

    def has(self, name: str) -> bool:
        """By the name alone: files that come or go meanwhile move no other file to another shard."""
        return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) % self.shard.count == self.shard.index


def plan_shares(config: Config, rainy: str, target: str, model: str) -> list[str]:
    """The shares, as text, of all pictures and videos below `rainy`; an alias is settled on its version of now.

    Raises DataError: nothing to do, outputs that would clash or lie among the originals; RegistryError or BundleError:
    no such model.
    """
    jobs = _jobs(rainy, target)
    settled = _settled(model)
    count = -(-len(jobs) // config.fan_out.images)
    shards = Shard(0, count, sha256_file(find_model(local_model(settled)))).siblings()
    return [str(Share(shard, settled)) for shard in shards]


def derain_share(config: Config, rainy: str, target: str, share: Share) -> dict[str, Any]:
    """Derain a share of the files as the evaluation does; what is whole already is passed over.

    Returns and leaves the counts `done` and `skipped`, and `failed`, the reason by name. Raises BundleError where the
    model is no longer the planned one.
    """
    target = canonical(target)
    jobs = [job for job in _jobs(rainy, target) if share.has(job.source.name)]
    made_by = digest_of([share.shard.sources, config.evaluation.model_dump(include={"tile", "overlap", "mirror"})])
    unfinished = _unfinished(jobs, target, made_by)
    logger.info("shard %s: %d files, %d to be derained", share.shard, len(jobs), len(unfinished))
    failed = _derain(config, share, unfinished, target, made_by) if unfinished else {}
    part = {"done": len(unfinished) - len(failed), "skipped": len(jobs) - len(unfinished), "failed": failed}
    _write(_part(target, share), part)
    return part


def sum_up(config: Config, target: str, shares: list[Share]) -> str:
    """Put the shards' summaries together in TARGET/derained.json and say it in a line.

    Raises DataError where more than the share `fan_out.failures` of all files failed, or a summary is missing.
    """
    target = canonical(target)
    total: dict[str, Any] = {"done": 0, "skipped": 0, "failed": {}}
    for share in shares:
        part = _read(_part(target, share))
        if part is None:
            raise DataError(f"{_part(target, share)} is missing; run shard {share.shard} again")
        total = {name: total[name] | part[name] if name == "failed" else total[name] + part[name] for name in total}
    failed, count = total["failed"], total["done"] + total["skipped"] + len(total["failed"])
    _write(f"{target}/{SUMMARY}", total | {"model": shares[0].model, "model_sha256": shares[0].shard.sources})
    line = f"{total['done']} derained, {total['skipped']} were there, {len(failed)} failed"
    if len(failed) > config.fan_out.failures * count:
        listed = "".join(f"\n  {name}: {reason}" for name, reason in sorted(failed.items())[:SHOWN])
        raise DataError(
            f"{line}, more than fan_out.failures={config.fan_out.failures:g} of {count}; all are in "
            f"{target}/{SUMMARY}, the others are derained and will be passed over:{listed}"
        )
    return line


def _jobs(rainy: str, target: str) -> list[Job]:
    rainy, target = canonical(rainy), canonical(target)
    if f"{target}/".startswith(f"{rainy}/"):
        raise DataError(f"{target} lies in {rainy}: outputs would be derained again; choose a target beside it")
    return plan([rainy], target, existing="replace")[0]


def _settled(model: str) -> str:
    """The version that an alias stands for now, and a path that means the same from everywhere."""
    name, separator, alias = model.partition("@")
    if model.startswith("models:/") and separator:
        from rgsud_lib.registry import Registry

        return f"{name}/{Registry.open(RUNS).find(alias).version}"
    return model if ":/" in model else canonical(model)


def _derain(config: Config, share: Share, unfinished: list[Job], target: str, made_by: str) -> dict[str, str]:
    """Derain, and record what was; returns the reasons of failures by name."""
    file = find_model(local_model(share.model))
    if sha256_file(file) != share.shard.sources:
        raise BundleError(f"{share.model} is another model than was planned with; start the run again")
    how = config.evaluation
    worker = Worker(Derainer.load(file, tile=how.tile, overlap=how.overlap, mirror=how.mirror))
    for job, written in zip(unfinished, worker.run(unfinished), strict=True):
        if written:
            _write(_record(job, target), {"source": job.source.digest(), "made_by": made_by})
    return {job.source.name: reason for job in unfinished if (reason := worker.failures.get(job.source.address))}


def _unfinished(jobs: list[Job], target: str, made_by: str) -> list[Job]:
    """Those whose output or record is missing, or tells of another original or model; such a record is removed."""
    if not is_remote(target):
        Path(target).mkdir(parents=True, exist_ok=True)
    present = {file.address for file in list_files(target)}

    def is_finished(job: Job) -> bool:
        record = _read(_record(job, target))
        if job.target in present and record == {"source": job.source.digest(), "made_by": made_by}:
            return True
        if record is not None:
            _remove(_record(job, target))
        return False

    with ThreadPoolExecutor(transfer.THREADS) as pool:
        return [job for job, finished in zip(jobs, pool.map(is_finished, jobs), strict=True) if not finished]


def _record(job: Job, target: str) -> str:
    return f"{target}/{HIDDEN}/records/{job.target.removeprefix(f'{target}/')}.json"


def _part(target: str, share: Share) -> str:
    return f"{target}/{HIDDEN}/shards/{share.shard.index}-of-{share.shard.count}.json"


def _read(address: str) -> Any:
    """A JSON document, None where there is none."""
    if is_remote(address):
        data = transfer.read(address)
    else:
        data = Path(address).read_bytes() if Path(address).is_file() else None
    return None if data is None else json.loads(data)


def _write(address: str, document: dict[str, Any]) -> None:
    if is_remote(address):
        transfer.write(address, json.dumps(document, indent=1, sort_keys=True).encode())
    else:
        Path(address).parent.mkdir(parents=True, exist_ok=True)
        write_json(Path(address), document)


def _remove(address: str) -> None:
    if is_remote(address):
        transfer.delete([address])
    else:
        Path(address).unlink(missing_ok=True)
