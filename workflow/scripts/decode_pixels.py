"""Decode the images of a split once, as a student reads them, or whole for random crops.

    python workflow/scripts/decode_pixels.py --shards results/coco/shards/train --student '{"name": "ViT-B/32"}' \
        --output results/coco/pixels/ViT-B--32/train
"""

import argparse
import json
from pathlib import Path

from cusa.common.program import run
from cusa.config.models import StudentSettings
from cusa.config.section import validate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", required=True, type=Path, help="folder of the shards of a split")
    parser.add_argument("--student", help="the section `student`, as JSON; without it, whole pictures are stored")
    parser.add_argument("--output", required=True, type=Path, help="folder for pixels.npy and meta.json")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; default 1")
    arguments = parser.parse_args()
    from cusa.student.pixels import transform_of_student, write_crops, write_whole_pictures

    if arguments.student is None:
        write_whole_pictures(arguments.shards, arguments.output, arguments.threads)
    else:
        transform = transform_of_student(validate(StudentSettings, json.loads(arguments.student)))
        write_crops(arguments.shards, transform, arguments.output, arguments.threads)


if __name__ == "__main__":
    run(main)
