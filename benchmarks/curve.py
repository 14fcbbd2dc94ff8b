"""The held-out PSNR over the minutes of fits, as one picture.

    warpdvr fit dtu_scan65 --field sdf --minutes 5 --out sdf            # and so on, one run per field
    python benchmarks/curve.py sdf occupancy hashgrid --out curve.png

Reads what `warpdvr fit` noted in log.jsonl on its way: up to seven held-out views at 200 pixels.
"""

import argparse
import json
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from warpdvr.runs.run import Run

SIZE, MARGIN = (640, 400), (56, 16, 16, 44)  # left, top, right, bottom
COLORS = ((214, 96, 40), (44, 110, 180), (40, 140, 80), (130, 80, 170), (90, 90, 90))


def readings(run: Run) -> list[tuple[float, float]]:
    """Return (minutes, PSNR) of each look at the held-out views."""
    rows = [json.loads(row) for row in run.log.read_text().splitlines()]
    return [(row["seconds"] / 60, row["psnr"]) for row in rows if "psnr" in row]


def draw(curves: dict[str, list[tuple[float, float]]]) -> Image.Image:
    """Return the picture of curves by their names."""
    points = [point for curve in curves.values() for point in curve]
    last = max(minutes for minutes, _ in points)
    low, high = (round(extreme(psnr for _, psnr in points)) + more for extreme, more in ((min, -1), (max, 1)))
    left, top = MARGIN[:2]
    width, height = SIZE[0] - left - MARGIN[2], SIZE[1] - top - MARGIN[3]

    def at(minutes: float, psnr: float) -> tuple[float, float]:
        return left + width * minutes / last, top + height * (high - psnr) / (high - low)

    picture = Image.new("RGB", SIZE, "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    for psnr in range(low, high + 1):
        pen.line([at(0, psnr), at(last, psnr)], fill=(225, 225, 225))
        if psnr % 2 == 0:
            pen.text((left - 8, at(0, psnr)[1]), f"{psnr}", fill="black", font=font, anchor="rm")
    for minute in range(round(last) + 1):
        pen.text((at(minute, low)[0], top + height + 8), f"{minute}", fill="black", font=font, anchor="mt")
    pen.text((left + width / 2, SIZE[1] - 8), "minutes of fitting", fill="black", font=font, anchor="mb")
    pen.text((left + 6, top + 4), "held-out PSNR [dB]", fill="black", font=font)
    for i, (name, curve) in enumerate(curves.items()):
        color = COLORS[i % len(COLORS)]
        pen.line([at(*point) for point in curve], fill=color, width=2)
        for point in curve:
            x, y = at(*point)
            pen.ellipse([x - 3, y - 3, x + 3, y + 3], fill=color)
        pen.text((left + width - 8, top + height - 20 * (len(curves) - i)), name, fill=color, font=font, anchor="rt")
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description="Held-out PSNR over minutes.")
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    parser.add_argument("--out", type=Path, default=Path("curve.png"))
    options = parser.parse_args()
    runs = [Run.open(folder) for folder in options.runs]
    draw({run.scene().field["kind"]: readings(run) for run in runs}).save(options.out)
    print(options.out)


if __name__ == "__main__":
    main()
