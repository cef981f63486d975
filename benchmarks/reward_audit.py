"""Which reward ranks the outputs of a run's models as PSNR does? `rgsud audit-rewards`, with its provenance kept.

usage: python benchmarks/reward_audit.py --pairs DIR --clean DIR --checkpoints WORKDIR [WORKDIR ...]
           [--scorers critic,decorrelation,...] [--workdir DIR] [--out benchmarks/results/reward_audit.json]

The critic is the one that the newest of the workdirs' `prepare` trained. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from record import write_record

from rgsud_lib.config import load_config
from rgsud_lib.rewards.audit import audit_rewards

SCORERS = (
    "critic,decorrelation,rain_layer,niqe,piqe,critic+decorrelation,critic+2*decorrelation,2*critic+decorrelation,"
    "critic+rain_layer,critic+decorrelation+niqe"
)


def row(entry: dict) -> str:
    found = entry["outputs"]
    rho = found["spearman_psnr"]
    return (
        f"| `{entry['name']}` | {rho['mean']:.2f} ({rho['low']:.2f} to {rho['high']:.2f}) "
        f"| {found['spearman_ssim']['mean']:.2f} | {found['gain']['mean']:+.2f} | {found['regret']['mean']:.2f} "
        f"| {entry['seconds_per_image']:.3f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", required=True, help="folder with rain/ and clean/, same names")
    parser.add_argument("--clean", required=True)
    parser.add_argument("--checkpoints", type=Path, nargs="+", required=True, help="workdirs or models, in order")
    parser.add_argument("--scorers", default=SCORERS)
    parser.add_argument("--workdir", type=Path, default=Path("rgsud-runs"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/reward_audit.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names, folder = arguments.scorers.split(","), arguments.workdir / "audit"
    summary = audit_rewards(
        load_config("cpu"),
        arguments.pairs,
        arguments.clean,
        arguments.checkpoints,
        [],
        names,
        arguments.workdir,
        folder,
    )
    write_record(arguments.out, summary)
    print("| scorer | rank correlation with PSNR (95 %) | with SSIM | gain over last, dB | regret, dB | s/image |")
    print("|---|---|---|---|---|---|")
    print("\n".join(row(entry) for entry in summary["scorers"]))


if __name__ == "__main__":
    main()
