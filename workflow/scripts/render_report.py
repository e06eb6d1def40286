"""Render the HTML report and its figures.

    python workflow/scripts/render_report.py --data results/openmoji --summary results/openmoji/summary.parquet \
        --gallery '{}' --output results/openmoji/report/index.html --figures results/openmoji/report/figures \
        results/openmoji/runs/*/seed23
"""

import argparse
import json
from pathlib import Path

from cusa.common.program import run
from cusa.config.report import Gallery
from cusa.config.section import validate
from cusa.layout import DatasetFolder
from cusa.report.page import render


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, {experiment}/seed{n}")
    parser.add_argument("--data", required=True, type=Path, help="folder with annotations and shards")
    parser.add_argument("--summary", required=True, type=Path, help="summary.parquet")
    parser.add_argument("--gallery", required=True, help="the section `report.gallery` of the configuration, as JSON")
    parser.add_argument("--output", required=True, type=Path, help="HTML file to write")
    parser.add_argument("--figures", required=True, type=Path, help="folder for the SVG figures")
    parser.add_argument("--sweep", type=Path, help="trials.parquet of a sweep over settings")
    arguments = parser.parse_args()
    runs: dict[str, list[Path]] = {}
    for path in arguments.runs:
        runs.setdefault(path.parent.name, []).append(path)
    gallery = validate(Gallery, json.loads(arguments.gallery))
    data, figures = DatasetFolder(arguments.data), arguments.figures
    render(data, arguments.summary, runs, gallery, arguments.output, figures, arguments.sweep)


if __name__ == "__main__":
    run(main)
