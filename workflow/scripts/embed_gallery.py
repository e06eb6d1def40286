"""Embed a share of a folder of images, a table or tars with the model of a run.

    python workflow/scripts/embed_gallery.py --run-folder results/openmoji/runs/cusa/seed23 --items photos \
        --unfinished results/openmoji/runs/cusa/seed23/gallery/photos.unfinished
"""

import argparse
from pathlib import Path

from cusa.common.program import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-folder", required=True, type=Path, help="run folder with weights and run.json")
    parser.add_argument("--items", required=True, help="a folder of images, a table or tars")
    parser.add_argument("--head", default="cross", choices=["cross", "uni"], help="head of the embeddings")
    parser.add_argument("--unfinished", required=True, type=Path, help="folder in which all shares are collected")
    parser.add_argument("--part", type=int, default=0, help="number of the share, counted from 0")
    parser.add_argument("--parts", type=int, default=1, help="number of shares; default 1")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; default 1")
    parser.add_argument("--gpu", action="store_true", help="run the model on a GPU")
    arguments = parser.parse_args()
    from cusa.gallery.shares import embed_share

    device = "cuda" if arguments.gpu else "cpu"
    share, threads = (arguments.part, arguments.parts), arguments.threads
    embed_share(arguments.run_folder, arguments.items, arguments.unfinished, arguments.head, share, device, threads)


if __name__ == "__main__":
    run(main)
