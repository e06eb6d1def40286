# Image-text retrieval with soft labels: data -> shards -> teacher features -> training -> benchmarks -> report.
#
#   snakemake --cores all                          everything
#   snakemake --cores all features                 one stage: annotations, shards, features, models, scores, report, exports,
#                                                  search or sweep
#   snakemake --cores all --configfile FILE.yaml   with your own configuration merged onto config/config.yaml
#
# `cusa run` is this with the installed package's copy of these files, in any folder.
from pathlib import Path

from snakemake.utils import min_version

min_version("9.17")


# The folder of this file; `workflow.basedir` is that of another one where this workflow is a module.
WORKFLOW_FOLDER = workflow.current_basedir.get_path_or_uri(secret_free=True)
# A rule of the workflow that includes this one as a module, if it has one before, remains its default target.
IS_DEFAULT = workflow.default_target is None
# The working directory can have its own config/config.yaml, which replaces the one of the repository.
OWN_CONFIG = Path("config/config.yaml")


configfile: OWN_CONFIG if OWN_CONFIG.is_file() else f"{WORKFLOW_FOLDER}/config/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/recorded.smk"
include: "workflow/rules/devices.smk"
include: "workflow/rules/containers.smk"
include: "workflow/rules/moved.smk"
include: "workflow/rules/screen.smk"
include: "workflow/rules/changed_images.smk"
include: "workflow/rules/annotations.smk"


# Where results cannot be given their times, nothing can be made either, so that nothing is out of date there.
if not TIMES_ARE_RIGHT:

    inputflags:
        ancient,


include: "workflow/rules/shards.smk"
include: "workflow/rules/teachers.smk"
include: "workflow/rules/student_inputs.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/sweep.smk"
include: "workflow/rules/embeddings.smk"
include: "workflow/rules/benchmarks.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/exports.smk"
include: "workflow/rules/search.smk"


onstart:
    require_writable_results()
    require_devices()
    PARTS.remove_others(
        [
            ANNOTATIONS,
            SHARDS.format(split="train"),
            *expand(
                TOKENS, student=STUDENT_INPUTS.students_of_tokens, split="train"
            ),
        ]
    )
    keep_previous_runs()
    show_running_jobs()
    interrupt_once()


onsuccess:
    RUNNING.stop()
    say(results_of_targets())


onerror:
    RUNNING.stop()
    say(
        lines_of_failure(
            LOGS,
            workflow.start_time.timestamp(),
            COMMAND,
            FAILED,
        )
    )


rule all:
    "Everything: the report, the summary, and the exports and indexes that are asked for."
    default_target: IS_DEFAULT
    input:
        lost_files,
        rules.render_report.output,
        rules.summarise.output,
        SEARCH.export_folders(),
        SEARCH.index_files(),
    localrule: True


rule annotations:
    "The tables of images and captions."
    input:
        rules.convert.output,
    localrule: True


rule shards:
    "The images of each split as tar files."
    input:
        expand(SHARDS, split=PLAN.splits),
    localrule: True


rule features:
    "The features of all frozen models."
    input:
        lost_feature_files,
        PLAN.feature_files(),
    localrule: True


rule models:
    "All runs, trained."
    input:
        lost_feature_files,
        PLAN.run_files("best.safetensors"),
    localrule: True


rule scores:
    "The scores of all benchmarks, and their summary."
    input:
        lost_feature_files,
        PLAN.score_files(".json"),
        rules.summarise.output,
    localrule: True


rule report:
    "The page that compares the runs."
    input:
        lost_feature_files,
        rules.render_report.output,
    localrule: True


rule exports:
    "Trained models for other programs."
    input:
        SEARCH.export_folders(),
    localrule: True


rule search:
    "The indexes of what can be searched."
    input:
        lost_files,
        SEARCH.index_files(),
    localrule: True


rule sweep:
    "The trials of a search over settings, and their table."
    input:
        SWEEP.summary_files(),
    localrule: True
