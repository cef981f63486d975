"""Load of CPU, memory, disk, network and GPUs, measured by MLflow's monitors in a thread of ours.

MLflow's own thread needs the server for every sample and ends when that is away. Needs mlflow and psutil.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

from mlflow.environment_variables import MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL
from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

INTERVAL = 10.0  # seconds between samples, unless MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL says otherwise


class SystemMetrics:
    """Hands a sample to `log` now and then, until `stop`."""

    def __init__(self, log: Callable[[dict[str, float]], None]) -> None:
        self._log, self._stop = log, threading.Event()
        self._thread = threading.Thread(target=self._run, name="rgsud system metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        monitors = _monitors()
        interval = MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL.get() or INTERVAL
        while not self._stop.wait(interval):
            values: dict[str, float] = {}
            for monitor in monitors:
                monitor.collect_metrics()
                values |= monitor.aggregate_metrics()
                monitor.clear_metrics()
            self._log(values)


def _monitors() -> list[BaseMetricsMonitor]:
    monitors: list[BaseMetricsMonitor] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with suppress(ImportError, RuntimeError):  # no library, or no GPU
        monitors.append(GPUMonitor())
    return monitors
