"""Run all benchmark programs, or those that are named, and write the table: python benchmarks/run_all.py [NAME ...]"""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from measure import MARKER, machine

HERE = Path(__file__).parent
PROGRAMS = [
    "demo_run",
    "metrics_start_up",
    "packaged_teachers",
    "recall_at_k",
    "published_benchmarks",
    "converting",
    "writing_shards",
    "loading_images",
    "mapped_features",
    "training_step",
    "trained_part",
    "scale",
    "embedding_gallery",
    "index_million",
    "onnx_text",
    "search_start",
    "serving",
]


def main() -> None:
    names = sys.argv[1:] or PROGRAMS
    claims = []
    for name in names:
        print(f"== {name}", flush=True)
        done = subprocess.run([sys.executable, HERE / f"{name}.py"], stdout=subprocess.PIPE, text=True, check=True)
        for line in done.stdout.splitlines():
            if line.startswith(MARKER):
                claims.append(json.loads(line.removeprefix(MARKER)))
            else:
                print(line, flush=True)
    lines = [
        f"Measured {datetime.now(UTC):%Y-%m-%d} on {machine()}.",
        "",
        "| what | measured | bar | holds |",
        "|---|---|---|---|",
    ]
    lines += [f"| {c['what']} | {c['measured']} | {c['bar']} | {'yes' if c['holds'] else 'NO'} |" for c in claims]
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    (folder / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    if not all(claim["holds"] for claim in claims):
        sys.exit("some bars do not hold on this machine")


if __name__ == "__main__":
    main()
