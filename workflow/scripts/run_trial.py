"""Run one trial of a sweep, or continue an interrupted one. Start this script directly, or with torchrun.

    python workflow/scripts/run_trial.py --data results/openmoji --study results/openmoji/sweep/cusa-tpe-0123abcd \
        --trial 0003 --configuration '{...}'
"""

import argparse
import json
from pathlib import Path

from cusa.common.program import run
from cusa.config import load
from cusa.layout import DatasetFolder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="folder with annotations, shards and teachers")
    parser.add_argument("--study", required=True, type=Path, help="folder of the sweep")
    parser.add_argument("--trial", required=True, help="name of the trial")
    parser.add_argument("--point", default="null", help="values of a grid's trial, as JSON; null draws them")
    parser.add_argument("--configuration", required=True, help="the complete configuration, as JSON")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of all processes on this machine")
    arguments = parser.parse_args()
    from cusa.sweep.trial import run_trial

    configuration, point = load(json.loads(arguments.configuration)), json.loads(arguments.point)
    folder = DatasetFolder(arguments.data)
    run_trial(configuration, folder, arguments.study, arguments.trial, point, arguments.threads)


if __name__ == "__main__":
    run(main)
