"""Write the run folder of a baseline: a student that is scored without training.

python workflow/scripts/write_baseline.py --run-folder results/coco/runs/zero_shot/seed23 --configuration '{...}'
"""

import argparse
import json
from pathlib import Path

from cusa.common.program import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-folder", required=True, type=Path, help="run folder to make")
    parser.add_argument("--configuration", required=True, help="the run's configuration, as JSON")
    arguments = parser.parse_args()
    from cusa.config.experiments import RunConfiguration
    from cusa.config.section import validate
    from cusa.runs.baseline import write_baseline

    write_baseline(arguments.run_folder, validate(RunConfiguration, json.loads(arguments.configuration)))


if __name__ == "__main__":
    run(main)
