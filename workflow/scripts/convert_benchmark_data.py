"""Write the tables of a benchmark's own data: labelled images, or sentence pairs.

    python workflow/scripts/convert_benchmark_data.py images cub --source data/CUB_200_2011 \
        --output results/benchmark-data/cub/annotations
"""

import argparse
from pathlib import Path

from cusa.annotations.benchmark_data import convert_labelled_images, convert_sentence_pairs
from cusa.common.program import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["images", "sentences"])
    parser.add_argument("name", help="cub, cars, sop, inshop, inaturalist, senteval, or a name of your own")
    parser.add_argument("--source", required=True, type=Path, help="the unpacked archive, or a file of your own")
    parser.add_argument("--output", required=True, type=Path, help="folder for the Parquet tables")
    arguments = parser.parse_args()
    convert = convert_labelled_images if arguments.kind == "images" else convert_sentence_pairs
    convert(arguments.name, arguments.source, arguments.output)


if __name__ == "__main__":
    run(main)
