"""Import a published checkpoint as a run folder.

    python workflow/scripts/import_checkpoint.py --file checkpoint_best.pth --student ViT-B/32 --dataset coco \\
        --run-folder results/coco/runs/theirs/seed23 --seed 23
"""

import argparse
from pathlib import Path

from cusa.common.program import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", required=True, type=Path, help="checkpoint_best.pth")
    parser.add_argument("--student", required=True, help="name or folder of the CLIP that it was fine-tuned from")
    parser.add_argument("--dataset", required=True, help="name of the data set that it is scored on")
    parser.add_argument("--run-folder", required=True, type=Path, help="run folder to make")
    parser.add_argument("--seed", required=True, type=int, help="the seed in the name of the run folder")
    parser.add_argument("--gpus", type=int, default=0, help="train.gpus in run.json: where embed.py embeds unless told")
    arguments = parser.parse_args()
    from cusa.upstream.checkpoints import import_checkpoint

    file, folder, dataset = arguments.file, arguments.run_folder, arguments.dataset
    import_checkpoint(file, folder, dataset, arguments.student, arguments.seed, arguments.gpus)


if __name__ == "__main__":
    run(main)
