"""Build the index of a gallery.

    python workflow/scripts/build_index.py --gallery results/openmoji/runs/cusa/seed23/gallery/test --settings '{}' \
        --model results/openmoji/runs/cusa/seed23/exports/onnx --output results/openmoji/runs/cusa/seed23/search/all
"""

import argparse
import json
import sys
from pathlib import Path

from cusa.common.program import run
from cusa.config.search import IndexSettings
from cusa.config.section import validate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gallery", required=True, type=Path, help="folder of embeddings and items")
    parser.add_argument("--model", required=True, type=Path, help="run folder or exported folder for the queries")
    parser.add_argument("--settings", required=True, help="the section `search.index` of the configuration, as JSON")
    parser.add_argument("--output", required=True, type=Path, help="folder of the index")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; default 1")
    arguments = parser.parse_args()
    from cusa.index.build import build_index
    from cusa.index.options import IndexOptions
    from cusa.index.table import table

    settings = validate(IndexSettings, json.loads(arguments.settings))
    kind = None if settings.kind == "auto" else settings.kind
    options = IndexOptions(settings.target_recall, kind, model=arguments.model, threads=arguments.threads)
    sys.stdout.writelines(f"{line}\n" for line in table(build_index(arguments.gallery, arguments.output, options)))


if __name__ == "__main__":
    run(main)
