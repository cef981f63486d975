"""placement.yaml, the file that the platform team edits: read and checked.

Unknown keys are refused, and every mistake is named by file, path, value and rule.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from kubernetes.utils.quantity import parse_quantity
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from rgsud_lib.errors import ConfigError

PACKAGED = Path(__file__).parent / "placement.yaml"
FILE = "RGSUD_PLACEMENT"

Cpu = Annotated[str, StringConstraints(pattern=r"^\d+(\.\d+)?$|^\d+m$")]
Memory = Annotated[str, StringConstraints(pattern=r"^\d+(E|Ei|P|Pi|T|Ti|G|Gi|M|Mi|K|Ki)?$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]
Label = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$")]
LabelKey = Annotated[
    str, StringConstraints(pattern=r"^([a-z0-9][-a-z0-9.]{0,252}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")
]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


class CpuRange(Section):
    request: Cpu
    limit: Cpu

    @model_validator(mode="after")
    def request_fits(self) -> CpuRange:
        return _fits(self)


class MemoryRange(Section):
    request: Memory
    limit: Memory

    @model_validator(mode="after")
    def request_fits(self) -> MemoryRange:
        return _fits(self)


class Accelerator(Section):
    type: LabelKey
    count: int = Field(ge=1)


class Requirement(Section):
    """On a node's labels, as in Kubernetes: `Gt` and `Lt` take one whole number."""

    key: LabelKey
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    values: tuple[Label, ...] = ()

    @model_validator(mode="after")
    def values_fit(self) -> Requirement:
        wanted = {"Exists": 0, "DoesNotExist": 0, "Gt": 1, "Lt": 1}.get(self.operator)
        if wanted is None and not self.values:
            raise ValueError(f"operator {self.operator} needs values; give at least one")
        if wanted is not None and len(self.values) != wanted:
            raise ValueError(f"operator {self.operator} takes {wanted} values, not {len(self.values)}")
        return self


class AffinityTerm(Section):
    """All of `match` must hold. Required where it has no weight (one of several such terms is enough)."""

    match: tuple[Requirement, ...] = Field(min_length=1)
    weight: int | None = Field(None, ge=1, le=100)


class Toleration(Section):
    key: LabelKey
    operator: Literal["Exists", "Equal"]
    value: Label | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(None, description="None: all effects")

    @model_validator(mode="after")
    def value_fits(self) -> Toleration:
        if (self.operator == "Equal") != (self.value is not None):
            raise ValueError(f"toleration of {self.key!r}: Equal needs a value, Exists takes none")
        return self


class Retries(Section):
    count: int = Field(ge=0, le=100)
    wait_seconds: int = Field(ge=0)
    factor: float = Field(2.0, ge=1)
    longest_wait_seconds: int = Field(3600, ge=0)


class StageClass(Section):
    """What a pod of this kind of stage gets, and where it may run."""

    accelerator: Accelerator | None = None
    cpu: CpuRange
    memory: MemoryRange
    shared_memory: Memory
    scratch: Memory
    node_selector: dict[LabelKey, Label] = {}
    node_affinity: tuple[AffinityTerm, ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    retries: Retries
    timeout_hours: float = Field(gt=0)

    @model_validator(mode="after")
    def shared_memory_fits(self) -> StageClass:
        if parse_quantity(self.shared_memory) >= parse_quantity(self.memory.limit):
            raise ValueError(
                f"shared_memory {self.shared_memory} counts against the memory limit {self.memory.limit}; "
                "give less, or raise the limit"
            )
        return self


class StageClasses(Section):
    light: StageClass
    inference: StageClass
    training: StageClass


class Keys(Section):
    """Keys of a ConfigMap or Secret; a pod does not start without the required ones."""

    required: tuple[Variable, ...] = ()
    optional: tuple[Variable, ...] = ()


class Environment(Section):
    config_maps: dict[Name, Keys] = {}
    secrets: dict[Name, Keys] = {}


class Common(Section):
    service_account: Name
    environment: Environment
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"]
    image_pull_secrets: tuple[Name, ...] = ()
    labels: dict[LabelKey, Label] = {}
    annotations: dict[LabelKey, str] = {}


class Placement(Section):
    common: Common
    profiles: dict[Name, StageClasses] = Field(min_length=1)


def read_placement(file: Path | None = None) -> Placement:
    """The placement in `file`, else in the file that RGSUD_PLACEMENT names, else the packaged one.

    Raises ConfigError: no such file, no YAML, or path, value and rule of each mistake.
    """
    path = file or Path(os.environ.get(FILE) or PACKAGED)
    try:
        document = yaml.safe_load(path.read_text())
        return Placement.model_validate(document)
    except OSError as error:
        raise ConfigError(f"cannot read the placement {path}: {error.strerror}; check {FILE}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no YAML: {error}") from error
    except ValidationError as error:
        raise ConfigError("\n".join(f"{path}: {_explain(item)}" for item in error.errors())) from None


def _fits(amounts: Any) -> Any:
    if parse_quantity(amounts.request) > parse_quantity(amounts.limit):
        raise ValueError(f"request {amounts.request} exceeds limit {amounts.limit}; lower it or raise the limit")
    return amounts


def _explain(item: Any) -> str:
    place = ".".join(str(part) for part in item["loc"] if part != "[key]")
    rule = item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        known = sorted({name for model in Section.__subclasses__() for name in model.model_fields})
        near = difflib.get_close_matches(str(item["loc"][-1]), known, n=3, cutoff=0.5)
        return f"unknown key {place!r}" + (f"; did you mean {' or '.join(near)}?" if near else "; remove it")
    return f"{place}: {rule}" if isinstance(item["input"], dict) else f"{place}={item['input']!r}: {rule}"
