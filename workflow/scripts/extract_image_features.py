"""Run a frozen image model over the shards of one split and store its features.

    python workflow/scripts/extract_image_features.py --shards results/openmoji/shards/train \
        --model '{"name": "efficientnet-lite0"}' --output results/openmoji/teachers/image/efficientnet-lite0/train
"""

import argparse
import json
from pathlib import Path

from cusa.annotations.enough_data import require_enough
from cusa.common.program import run
from cusa.config.section import validate
from cusa.config.shards import Stream
from cusa.config.views import image_model
from cusa.layout import DatasetFolder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", required=True, type=Path, help="folder of one split's shards")
    parser.add_argument("--model", required=True, help="the keys of teachers.image in the configuration, as JSON")
    parser.add_argument("--output", required=True, type=Path, help="folder for features.npy and meta.json")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; default 1")
    parser.add_argument("--gpu", action="store_true", help="run the model on a GPU")
    parser.add_argument("--part", type=int, default=0, help="number of the part of the split, counted from 0")
    parser.add_argument("--parts", type=int, default=1, help="number of parts of the split; default 1")
    parser.add_argument("--stream", help="the section `stream` as JSON, if the shards are not in the folder --shards")
    parser.add_argument("--needs", help="what trainings need of the data, as JSON; too little stops before any work")
    parser.add_argument("--verify", action="store_true", help="compare the tar files with the sha256 written for each")
    arguments = parser.parse_args()
    require_enough(arguments.needs, DatasetFolder(arguments.shards.parents[1]).annotations)
    from cusa.teachers.extraction import extract_image_features

    settings = image_model(json.loads(arguments.model))
    shards, output, threads, gpu = arguments.shards, arguments.output, arguments.threads, arguments.gpu
    stream = None if arguments.stream is None else validate(Stream, json.loads(arguments.stream))
    part, parts, verify = arguments.part, arguments.parts, arguments.verify
    extract_image_features(shards, settings, output, threads, gpu, part, parts, stream, verify)


if __name__ == "__main__":
    run(main)
