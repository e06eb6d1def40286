"""Join the tokens of a split's parts into one folder.

    python workflow/scripts/join_tokens.py --data results/coco --output results/coco/tokens/ViT-B--32/train \
        results/coco/tokens/ViT-B--32/train.parts/0-of-2 results/coco/tokens/ViT-B--32/train.parts/1-of-2
"""

import argparse
from pathlib import Path

from cusa.common.program import run
from cusa.layout import DatasetFolder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", type=Path, help="folders of the parts, in order")
    parser.add_argument("--data", required=True, type=Path, help="folder with annotations")
    parser.add_argument("--output", required=True, type=Path, help="folder for ids.npy, ends.npy and meta.json")
    arguments = parser.parse_args()
    from cusa.student.tokens import join_tokens

    join_tokens(DatasetFolder(arguments.data), arguments.parts, arguments.output)


if __name__ == "__main__":
    run(main)
