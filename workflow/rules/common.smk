# The configuration, its plan, paths, and the constraints of wildcards, for all rules.
import os
import re
import shlex
import sys
from os import environ

from snakemake.exceptions import WorkflowError
from snakemake.settings.types import DeploymentMethod
from snakemake.utils import update_config


def stop(sentence):
    """End with one sentence. Snakemake would write the names of files and exceptions around a WorkflowError."""
    sys.exit(f"Error: {sentence}")


if not os.path.isdir(WORKFLOW_FOLDER):
    stop(
        f"the workflow lies in {WORKFLOW_FOLDER}, but its programs have to be files on this machine; clone it, or install "
        "cusa, and give a module the path of the Snakefile as `snakefile:`."
    )
moving = workflow.modifier.path_modifier
if moving.prefix or moving.modifies_prefixes:
    stop(
        "`prefix` and `replace_prefix` of a module move what rules declare, but not what their programs write; leave them "
        "out. All results are in results/, in a folder with the name of the data set."
    )

# These variables are set for the jobs, so that the user need not set them. PYTHONPATH: the library of a clone need not
# be installed where the jobs run; conda environments contain only its dependencies. PATH: jobs use the Python that runs
# Snakemake, even if its virtual environment is not activated.
sys.path.insert(0, f"{WORKFLOW_FOLDER}/src")
environ.update(
    PATH=os.pathsep.join([os.path.dirname(sys.executable), environ["PATH"]]),
    PYTHONPATH=os.pathsep.join(
        filter(None, [f"{WORKFLOW_FOLDER}/src", environ.get("PYTHONPATH")])
    ),
)

from cusa.annotations.enough_data import needs_json
from cusa.common.files import quoted_path, require_no_dead_link, require_writable
from cusa.common.garbage import collect_rarely
from cusa.common.workflow_files import PACKAGE, STARTED, link_library
from cusa.config import check_files, load, merge_onto_default, read_arguments, read_file
from cusa.errors import CusaError
from cusa.layout import DatasetFolder
from cusa.plan import (
    Plan,
    SearchPlan,
    StudentInputsPlan,
    SweepPlan,
    lost_features,
    lost_gallery_files,
    require_plain_names,
)
from cusa.plan.ending import lines_of_failure, lines_of_success
from cusa.runs.previous import keep_previous

collect_rarely()

# Snakemake takes braces in the path of a rule's environment for wildcards, and PYTHONPATH separates folders by colons.
if unusable := sorted({"{", "}", os.pathsep} & set(WORKFLOW_FOLDER)):
    stop(
        f"the workflow lies in {WORKFLOW_FOLDER}, whose name has {' and '.join(unusable)}, which Snakemake or Python "
        "takes for something else; rename the folder, or move the workflow to another."
    )

# An installed library is found by all but the conda environments and containers.
DEPLOYMENT = workflow.deployment_settings.deployment_method
ELSEWHERE = {DeploymentMethod.CONDA, DeploymentMethod.APPTAINER} & set(DEPLOYMENT)
if ELSEWHERE and not os.path.isdir(f"{WORKFLOW_FOLDER}/src"):
    library = link_library(Path(".snakemake/library"))
    environ["PYTHONPATH"] = f"{library}{os.pathsep}{environ['PYTHONPATH']}"

# The `config:` of a module can be the whole configuration of the workflow that includes it, or a part of it, to which
# neither its files nor its --config belong.
IS_GIVEN = workflow.modifier.skip_configfile
IS_SHARED = config is workflow.modifier_stack[0].globals["config"]

try:
    if IS_SHARED or not IS_GIVEN:
        for file in workflow.configfiles:
            read_file(file)
        update_config(
            config, read_arguments(workflow.config_settings.config_args or [])
        )
    if not IS_GIVEN and os.path.lexists(OWN_CONFIG):
        read_file(OWN_CONFIG)
    CONFIGURATION = load(merge_onto_default(config) if IS_GIVEN else config)
    check_files(CONFIGURATION)
    PLAN = Plan(CONFIGURATION)
    PLAN.check()
    require_no_dead_link(PLAN.folder.root)
    STUDENT_INPUTS = StudentInputsPlan(PLAN)
    SEARCH = SearchPlan(PLAN)
    SWEEP = SweepPlan(PLAN)
    SWEEP.check()
    require_plain_names(PLAN, SEARCH)
except CusaError as error:
    stop(error)

DATA = str(PLAN.folder.root)
RUN = str(PLAN.folder.run("{experiment}", "{seed}"))
ANNOTATIONS = str(PLAN.folder.annotations)
SHARDS = str(PLAN.folder.shards("{split}"))
IMAGE_FEATURES = str(PLAN.folder.features("image", "{model}", "{split}"))
TEXT_FEATURES = str(PLAN.folder.features("text", "{model}", "{split}"))
# The benchmarks' own data. They are stored beside the data sets, which share them.
BENCHMARK_FOLDER = PLAN.folder.benchmark_data("{data}")
BENCHMARK_DATA = str(BENCHMARK_FOLDER.root)
BENCHMARK_LOGS = str(BENCHMARK_FOLDER.root.parent)
# The path is relative, so that printed commands can be pasted into a terminal in the working directory. Rules name
# their script as a resource. If it were a parameter, Snakemake would run all jobs again when the results are used from
# a working directory with another relative path to the scripts. The value is quoted, not the place in the command: the
# text of a command must stay the same, or Snakemake would run all jobs again.
SCRIPTS = quoted_path(os.path.relpath(f"{WORKFLOW_FOLDER}/workflow/scripts"))
ON_GPU = CONFIGURATION.train.gpus > 0
# Where a run is embedded, whatever it was trained on. It stands beside the path of a script; see `checking_data`.
DEVICE = " --gpu" if ON_GPU else " --no-gpu"
# The environment of the jobs that run models, for --sdm conda. That for GPUs also has what reads a GPU's load.
TORCH_ENVIRONMENT = f"../../envs/torch{'-gpu' if PLAN.gpus_of_largest_job else ''}.yaml"


def one_of(names):
    """A constraint that matches exactly these names; `none` if there are no names."""
    return "|".join(names) or "none"


wildcard_constraints:
    split=one_of(PLAN.splits),
    experiment=one_of(PLAN.runs),
    seed=r"\d+",
    part=r"\d+",
    model=r"[^/]+",
    benchmark=one_of(PLAN.benchmarks),


# The order of jobs if more could start than there are cores. Jobs that find unreadable data come first, before hours
# are spent. Then come jobs that many others wait for and long jobs, so that no core is idle at the end. Jobs on images
# are longer than those on texts.
PRIORITY = {
    "tables": 100,
    "shards": 80,
    "images": 60,
    "texts": 50,
    "trainings": 40,
    "exports": 20,
}


def cores_here():
    """The cores that jobs may use together; None if a cluster has a number of jobs instead."""
    try:
        return workflow.cores
    except WorkflowError:
        return None


def side_by_side(threads):
    """The threads of a short job: at most half of this machine's cores, so that another job starts meanwhile.

    Much of a short job is the start of Python and its libraries, which takes one core. A cluster gives all `threads`.
    """
    cores = cores_here() if workflow.is_main_process else None
    return threads if cores is None else max(1, min(threads, cores // 2))


def threads_of_split(wildcards):
    """Most of the time goes to the images of the train split, if there are many; jobs on other images are short."""
    is_long = wildcards.split == "train" and not CONFIGURATION.dataset.few_images
    return 8 if is_long else side_by_side(8)


def threads_of_training(wildcards):
    """The steps of a student whose towers are both frozen are too small for many threads."""
    is_small = CONFIGURATION.student_of(wildcards.experiment).has_frozen_towers
    return side_by_side(8) if is_small else 8


# The command that a user repeats to continue: that of `cusa run`, or of snakemake itself. Jobs name the same command.
COMMAND = environ.setdefault(STARTED, shlex.join(["snakemake", *sys.argv[1:]]))


# Snakemake itself would wait for a core for ever.
if workflow.is_main_process and cores_here() == 0:
    stop("--cores is 0, so no job could ever start; give 1 or more, or all.")


def say(lines):
    """Print lines at the end, also if Snakemake runs with --quiet."""
    sys.stderr.writelines(f"{line}\n" for line in lines)


def results_of_targets():
    """The lines for the end about what the targets of this command stand for."""
    made = {str(path) for job in workflow.dag.jobs for path in job.output}
    return list(lines_of_success(PLAN, SEARCH, SWEEP, made))


def require_writable_results():
    """Stop if results cannot be written. Called once before jobs run, so that a dry run works on read-only results."""
    try:
        require_writable(DATA)
    except CusaError as error:
        stop(error)


def is_forced():
    """Whether the user has asked for jobs to run though nothing has changed."""
    settings = workflow.dag_settings
    return bool(settings.forcerun or settings.forceall or settings.forcetargets)


def keep_previous_runs():
    """Keep the finished runs that are trained again until they are whole: Snakemake deletes their files before."""
    for job in workflow.dag.needrun_jobs():
        if job.rule.name == "train":
            # Snakemake also forces what --rerun-incomplete finds: a training that ended after a kill is not taken again.
            forced = is_forced() and bool(workflow.dag.reason(job).forced)
            keep_previous(os.path.dirname(job.output.run), again=forced)


def data_folder(wildcards):
    """The folder of the data set, with annotations, shards and teachers."""
    return DATA


def part_of_features(path):
    """Mark a file of a part as temporary if the parts are copied into one file."""
    return temp(path) if CONFIGURATION.extraction.join else path


def checking_data(script, option_of=lambda wildcards: ""):
    """The resource `script` of a rule that stops before its work if the data set has too little for the trainings.

    The needs of trainings are in the value, not in the text of the command: a changed text, parameter or input would be
    a reason to run finished jobs again. The data of benchmarks, which have a wildcard `data`, train nothing.
    `option_of` gives a further option of the job, with a space before it.
    """
    needs = needs_json(CONFIGURATION)
    option = f" --needs {shlex.quote(needs)}" if needs else ""
    return lambda wildcards: (
        f"{SCRIPTS}/{script}"
        + option_of(wildcards)
        + ("" if hasattr(wildcards, "data") else option)
    )


def verifying(*when):
    """The option --verify of a script, beside its path as in `checking_data`, if shards.verify is one of `when`."""
    return " --verify" if CONFIGURATION.shards.verify in when else ""


def checks_of(benchmark):
    """The file that the rule check_benchmark writes for a benchmark; none if the benchmark checks nothing."""
    wanted = benchmark in PLAN.checked_benchmarks
    return [f"{DATA}/checks/{benchmark}.json"] if wanted else []


def student_option(student):
    """The argument --student of a script; empty for whole pictures, which belong to no student."""
    return "" if student is None else f" --student {shlex.quote(student.as_json())}"


def lost_feature_files(wildcards):
    """Features that are gone. Targets ask for them, because the inputs of jobs are the files that describe features."""
    return lost_features(PLAN)


def lost_files(wildcards):
    """Features and files of galleries that are gone; see `lost_feature_files`."""
    return [*lost_features(PLAN), *lost_gallery_files(SEARCH)]


def log_of(rule, name):
    return f"{DATA}/logs/{rule}/{name}.log"


def timing_of(rule, name):
    return f"{DATA}/timings/{rule}/{name}.tsv"
