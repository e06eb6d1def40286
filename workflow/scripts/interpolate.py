"""Write the run folder of the best weights between those before and after a training (WiSE-FT).

    python workflow/scripts/interpolate.py --data results/coco --source results/coco/runs/cusa/seed23 \
        --run-folder results/coco/runs/between/seed23 --configuration '{...}'
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
    parser.add_argument("--source", required=True, type=Path, help="run folder of the training")
    parser.add_argument("--run-folder", required=True, type=Path, help="run folder to make")
    parser.add_argument("--configuration", required=True, help="the run's configuration, as JSON (see run.json)")
    parser.add_argument("--operation", default="{}", help="keys of `train` that do not change the result, as JSON")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; default 1")
    arguments = parser.parse_args()
    from cusa.training.interpolation import interpolate

    mapping = json.loads(arguments.configuration)
    mapping["train"] |= json.loads(arguments.operation)
    configuration = validate(RunConfiguration, mapping)
    interpolate(configuration, DatasetFolder(arguments.data), arguments.source, arguments.run_folder, arguments.threads)


if __name__ == "__main__":
    run(main)
