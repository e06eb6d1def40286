"""Tokenise the captions of a split once, for all trainings of a student.

    python workflow/scripts/tokenise_captions.py --data results/coco --split train --student '{"name": "ViT-B/32"}' \
        --output results/coco/tokens/ViT-B--32/train
"""

import argparse
import json
from pathlib import Path

from cusa.common.program import run
from cusa.config.models import StudentSettings
from cusa.config.section import validate
from cusa.layout import DatasetFolder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="folder with annotations")
    parser.add_argument("--split", required=True)
    parser.add_argument("--student", required=True, help="the section `student`, as JSON")
    parser.add_argument("--output", required=True, type=Path, help="folder for ids.npy, ends.npy and meta.json")
    parser.add_argument("--part", type=int, default=0, help="the part of the captions, counted from 0; default 0")
    parser.add_argument("--parts", type=int, default=1, help="the number of parts; default 1")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; default 1")
    arguments = parser.parse_args()
    from cusa.student.tokens import tokeniser_of_student, use_threads, write_tokens

    use_threads(arguments.threads)
    student = validate(StudentSettings, json.loads(arguments.student))
    data, tokenise = DatasetFolder(arguments.data), tokeniser_of_student(student)
    write_tokens(data, arguments.split, tokenise, arguments.output, arguments.part, arguments.parts)


if __name__ == "__main__":
    run(main)
