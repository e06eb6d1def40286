"""Embed the data of benchmarks with the student of a run.

    python workflow/scripts/embed.py --data results/openmoji --run-folder results/openmoji/runs/cusa/seed23 \
        --benchmark-data test --output results/openmoji/runs/cusa/seed23/embeddings/test
"""

import argparse
from pathlib import Path

from cusa.common.program import run
from cusa.layout import DatasetFolder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="folder with annotations, shards and teachers")
    parser.add_argument("--run-folder", required=True, type=Path, help="run folder with weights and run.json")
    parser.add_argument("--benchmark-data", required=True, nargs="+", help="splits, extended_positives, sentence_pairs")
    parser.add_argument(
        "--output", required=True, nargs="+", type=Path, help="a folder for {image,text}_{cross,uni}.npy of each"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; default 1")
    parser.add_argument(
        "--gpu", action=argparse.BooleanOptionalAction, help="where to embed; default the device that the run names"
    )
    arguments = parser.parse_args()
    from cusa.embeddings import embed_all

    if len(arguments.output) != len(arguments.benchmark_data):
        parser.error("--output needs one folder for each of --benchmark-data")
    outputs = dict(zip(arguments.benchmark_data, arguments.output, strict=True))
    embed_all(arguments.run_folder, DatasetFolder(arguments.data), outputs, arguments.threads, arguments.gpu)


if __name__ == "__main__":
    run(main)
