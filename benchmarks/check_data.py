"""What `check-data` says of right data, and of every fault made from them.

`python benchmarks/check_data.py [good | SET | "FAULT" ...]` prints the table of check_data.md, or parts of it: those
sets, with those faults. WARPDVR_DATA names the folder of the data sets, else it is shared/data beside the repository.
"""

import os
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from data_faults import FAULTS, few  # noqa: E402  (the tests make the same faults)

import warpdvr  # noqa: E402
from warpdvr.datasets.check import check_data  # noqa: E402

GOOD = ("dtu_scan65", "middlebury_dino", "nerf_lego", "renders/spot", "renders/rocker_arm", "renders/fandisk")
VIEWS = 16
"""About so many views are left of a set before a fault is made; right data are read as they are."""

FAULTY = ("dtu_scan65", "middlebury_dino", "renders/spot")


def main() -> None:
    torch.set_num_threads(1)
    data = Path(os.environ.get("WARPDVR_DATA", ROOT.parent / "shared" / "data"))
    print("| set | fault | found | views named | score | s |\n|---|---|---|---|---|---|", flush=True)
    faults = [fault for fault in FAULTS if fault in sys.argv[1:]] or list(FAULTS)
    parts = [part for part in sys.argv[1:] if part not in FAULTS] or ["good", *FAULTY]
    for name in GOOD if "good" in parts else ():
        _row(name, "none, read from files", data / name)
    for name in (name for name in FAULTY if name in parts):
        views = few(warpdvr.load(data / name, hold_out=0), VIEWS)
        for fault in faults:
            _row(name, fault, FAULTS[fault][1](views))


def _row(name: str, fault: str, source: object) -> None:
    start = time.process_time()
    report = check_data(source)
    seconds = time.process_time() - start
    found = " + ".join(finding.kind for finding in report.findings) or "good"
    views = ", ".join(dict.fromkeys(view for finding in report.findings for view in finding.views))
    score = "" if report.score is None else f"{report.score:.3f}"
    print(f"| {name} | {fault} | {found} | {views} | {score} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
