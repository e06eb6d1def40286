"""Join the shares of a gallery that several jobs have embedded.

    python workflow/scripts/join_gallery.py --unfinished results/openmoji/runs/cusa/seed23/gallery/photos.unfinished \
        --output results/openmoji/runs/cusa/seed23/gallery/photos
"""

import argparse
from pathlib import Path

from cusa.common.program import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unfinished", required=True, type=Path, help="folder in which all shares are collected")
    parser.add_argument("--output", required=True, type=Path, help="folder of the gallery")
    arguments = parser.parse_args()
    from cusa.gallery.shares import finish_gallery

    finish_gallery(arguments.unfinished, arguments.output)


if __name__ == "__main__":
    run(main)
