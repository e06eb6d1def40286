# What the rules share: the configuration, the plan that follows from it, the names of places, and the constraints.
import os
import shlex
import sys
from os import environ

from snakemake.exceptions import WorkflowError
from snakemake.utils import update_config

# The library need not be installed where the jobs run: conda environments hold only its dependencies. Jobs use this
# Python also when the virtual environment is not activated. Set for the jobs, not required from the user.
sys.path.insert(0, f"{workflow.basedir}/src")
environ.update(
    PATH=os.pathsep.join([os.path.dirname(sys.executable), environ["PATH"]]),
    PYTHONPATH=os.pathsep.join(
        filter(None, [f"{workflow.basedir}/src", environ.get("PYTHONPATH")])
    ),
)

from cusa.common.files import require_writable
from cusa.config import check_files, command_line_values, load
from cusa.config.training import OPERATIONAL
from cusa.errors import CusaError
from cusa.layout import DatasetFolder
from cusa.plan import RESULTS, Plan

update_config(config, command_line_values(workflow.config_settings.config))
try:
    CONFIGURATION = load(config)
    check_files(CONFIGURATION)
    PLAN = Plan(CONFIGURATION)
    PLAN.check()
except CusaError as error:
    raise WorkflowError(str(error)) from None

DATA = str(PLAN.folder.root)
RUN = str(PLAN.folder.run("{experiment}", "{seed}"))
ANNOTATIONS = str(PLAN.folder.annotations)
SHARDS = str(PLAN.folder.shards("{split}"))
IMAGE_FEATURES = str(PLAN.folder.features("image", "{model}", "{split}"))
TEXT_FEATURES = str(PLAN.folder.features("text", "{model}", "{split}"))
# The data that benchmarks bring lie beside those of the data set, and are shared by all data sets.
BENCHMARK_FOLDER = PLAN.folder.benchmark_data("{data}")
BENCHMARK_DATA = str(BENCHMARK_FOLDER.root)
BENCHMARK_LOGS = str(BENCHMARK_FOLDER.root.parent)
# Relative, so that commands can be pasted from where Snakemake runs. Rules have their script as a resource: as a
# parameter it would be a reason to make results again that are used from a working directory at another depth.
SCRIPTS = os.path.relpath(f"{workflow.basedir}/workflow/scripts")
ON_GPU = CONFIGURATION.train.gpus > 0


def one_of(names):
    """A constraint that matches these names, and nothing where there are none."""
    return "|".join(names) or "none"


wildcard_constraints:
    split=one_of(PLAN.splits),
    experiment=one_of(PLAN.runs),
    seed=r"\d+",
    part=r"\d+",
    model=r"[^/]+",
    benchmark=one_of(PLAN.benchmarks),


def require_writable_results():
    """Asked once, when jobs are about to run: a dry run and a report work on read-only results."""
    try:
        require_writable(DATA)
    except CusaError as error:
        raise WorkflowError(str(error)) from None


def data_folder(wildcards):
    """Where the library finds annotations, shards and teachers."""
    return DATA


def log_of(rule, name):
    return f"{DATA}/logs/{rule}/{name}.log"


def timing_of(rule, name):
    return f"{DATA}/timings/{rule}/{name}.tsv"
