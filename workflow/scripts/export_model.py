"""Export the model of a run to a folder that other programs load.

    python workflow/scripts/export_model.py --run-folder results/openmoji/runs/cusa/seed23 --to onnx \
        --output results/openmoji/runs/cusa/seed23/exports/onnx
"""

import argparse
import sys
from pathlib import Path

from cusa.common.program import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-folder", required=True, type=Path, help="run folder with weights and run.json")
    parser.add_argument("--to", required=True, choices=["onnx", "sentence-transformers", "safetensors"])
    parser.add_argument("--output", required=True, type=Path, help="folder of the exported model")
    parser.add_argument("--head", choices=["cross", "uni"], help="the only head to export; default: all that can be")
    parser.add_argument("--int8", action="store_true", help="quantise the weights of an ONNX model")
    arguments = parser.parse_args()
    from cusa.export.exporting import ExportOptions, export

    options = ExportOptions(head=arguments.head, int8=arguments.int8)
    told = export(arguments.run_folder, arguments.to, arguments.output, options)
    sys.stdout.writelines(f"{line}\n" for line in told)


if __name__ == "__main__":
    run(main)
