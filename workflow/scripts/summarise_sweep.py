"""Write the tables of a sweep's trials, and the best of them as an overlay of the configuration.

python workflow/scripts/summarise_sweep.py --study results/openmoji/sweep/cusa-tpe-0123abcd 0000 0001 0002
"""

import argparse
from pathlib import Path

from cusa.common.program import run
from cusa.sweep.summary import summarise_sweep


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trials", nargs="+", help="names of the trials")
    parser.add_argument("--study", required=True, type=Path, help="folder of the sweep")
    arguments = parser.parse_args()
    summarise_sweep(arguments.study, arguments.trials)


if __name__ == "__main__":
    run(main)
