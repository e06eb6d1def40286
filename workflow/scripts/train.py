"""Train one run, or continue an interrupted one. Start this script directly, or with torchrun for several processes.

    torchrun --standalone --nproc-per-node 4 workflow/scripts/train.py --data results/openmoji \
        --run-folder results/openmoji/runs/cusa/seed23 --configuration '{...}'
"""

import argparse
import json
from pathlib import Path

from cusa.common.program import run
from cusa.config.experiments import RunConfiguration
from cusa.config.section import validate
from cusa.layout import DatasetFolder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="folder with annotations, shards and teachers")
    parser.add_argument(
        "--run-folder", required=True, type=Path, help="run folder; the training continues from its state/, if any"
    )
    parser.add_argument("--configuration", required=True, help="the run's configuration, as JSON (see run.json)")
    parser.add_argument("--operation", default="{}", help="keys of `train` that do not change the result, as JSON")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of all processes on this machine")
    parser.add_argument("--verify", action="store_true", help="compare the tar files with the sha256 written for each")
    arguments = parser.parse_args()
    from cusa.training.loop import train

    mapping = json.loads(arguments.configuration)
    mapping["train"] |= json.loads(arguments.operation)
    configuration = validate(RunConfiguration, mapping)
    train(configuration, DatasetFolder(arguments.data), arguments.run_folder, arguments.threads, arguments.verify)


if __name__ == "__main__":
    run(main)
