"""Print the scores and the files of a run."""

import sys
from collections.abc import Mapping
from pathlib import Path

from warpdvr.runs.options import Table

LOW_IOU, LOW_PSNR = 0.5, 10.0
"""Scores on held-out photographs below which a fit has failed; the PSNR is inside of the mask [dB]."""

FAILED = 3
"""Exit status of a fit that went to its end, but does not look like the photographs."""


def warn_of_failure(scores: Table) -> int:
    """Warn of a result that does not look like the held-out photographs; return the exit status, 0 or `FAILED`."""
    if not scores["views"] or not (scores["iou"] < LOW_IOU or scores["psnr"] < LOW_PSNR):
        return 0
    print(
        "warpdvr: the fit does not look like the held-out photographs: "
        f"IoU {scores['iou']:.2f}, {scores['psnr']:.1f} dB; "
        "`warpdvr check-data` on the folder tells whether masks and cameras agree, otherwise fit longer",
        file=sys.stderr,
    )
    return FAILED


def report(scores: Table, files: Mapping[str, Path]) -> None:
    """Print scores, and the paths of files by name."""
    if scores["views"]:
        print(
            f"held out   {scores['psnr']:.2f} dB inside of the mask, IoU {scores['iou']:.4f}, {scores['views']} views"
        )
    if distrusted := scores.get("distrusted_pixels"):
        print(f"masks      {distrusted} pixels of the views to fit were not trusted: the other views contradict them")
    if "chamfer_l1" in scores:
        share = 100 * scores["chamfer_l1"] / scores["extent"]
        if "mesh_vertices" in scores:
            print(f"our mesh   {scores['mesh_vertices']} vertices, {scores['mesh_triangles']} triangles")
        print(f"true mesh  Chamfer-L1 {scores['chamfer_l1']:.4g}, {share:.2f} % of the largest extent")
        if scores.get("concave_l1") is not None:
            share = 100 * scores["concave_l1"] / scores["extent"]
            print(
                f"           where no silhouette shows it ({100 * scores['concave_share']:.1f} % of its area): "
                f"{scores['concave_l1']:.4g}, {share:.2f} % of the extent"
            )
        volume = "" if scores["volume_iou"] is None else f", IoU of the volumes {scores['volume_iou']:.4f}"
        print(f"           F-score {scores['f_score']:.4f}, normals {scores['normal_consistency']:.4f}{volume}")
    for name, path in files.items():
        print(f"{name:<10} {path}")
