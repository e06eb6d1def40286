"""Make splits of the data set searchable with the embeddings that the workflow has stored.

    python workflow/scripts/collect_gallery.py --run-folder results/openmoji/runs/cusa/seed23 \
        --output results/openmoji/runs/cusa/seed23/gallery/test test
"""

import argparse
from pathlib import Path

from cusa.common.program import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("splits", nargs="+", help="splits whose images are in the gallery")
    parser.add_argument("--run-folder", required=True, type=Path, help="run folder with run.json and embeddings")
    parser.add_argument("--head", default="cross", choices=["cross", "uni"], help="head of the embeddings")
    parser.add_argument("--output", required=True, type=Path, help="folder of the gallery")
    arguments = parser.parse_args()
    from cusa.gallery.splits import gallery_of_splits

    gallery_of_splits(arguments.run_folder, arguments.splits, arguments.output, arguments.head)


if __name__ == "__main__":
    run(main)
