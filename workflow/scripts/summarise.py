"""Collect the results of all benchmarks in one table, and write it as Parquet, Markdown and LaTeX.

    python workflow/scripts/summarise.py --annotations results/openmoji/annotations \
        --parquet results/openmoji/summary.parquet --markdown results/openmoji/summary.md \
        --latex results/openmoji/summary.tex --reference contrastive \
        results/openmoji/runs/*/seed*/benchmarks/*.json
"""

import argparse
import json
from pathlib import Path

from cusa.common.program import run
from cusa.report.summary import summarise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path, help="JSON files of benchmarks")
    parser.add_argument("--annotations", required=True, type=Path, help="folder with problems.json")
    parser.add_argument("--parquet", required=True, type=Path, help="Parquet file to write")
    parser.add_argument("--markdown", required=True, type=Path, help="Markdown file to write")
    parser.add_argument("--latex", required=True, type=Path, help="LaTeX file to write")
    parser.add_argument("--reference", help="experiment that the others are compared with")
    parser.add_argument("--left-out", type=json.loads, help="data that are not scored, with the reason, as JSON")
    arguments = parser.parse_args()
    summarise(**vars(arguments))


if __name__ == "__main__":
    run(main)
