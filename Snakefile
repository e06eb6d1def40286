# Image-text retrieval with soft labels: data -> shards -> teacher features -> training -> benchmarks -> report.
#
#   snakemake --cores all                          everything
#   snakemake --cores all features                 one stage: annotations, shards, features, models, scores, report, exports,
#                                                  search or sweep
#   snakemake --cores all --configfile FILE.yaml   with your own configuration merged onto config/config.yaml
from pathlib import Path

from snakemake.utils import min_version

min_version("9.17")


# The working directory can have its own config/config.yaml, which replaces the one of the repository.
OWN_CONFIG = Path("config/config.yaml")


configfile: OWN_CONFIG if OWN_CONFIG.is_file() else f"{workflow.basedir}/config/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/devices.smk"
include: "workflow/rules/moved.smk"
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


localrules:
    all,
    annotations,
    shards,
    features,
    models,
    scores,
    report,
    exports,
    search,
    sweep,


rule all:
    default_target: True
    input:
        rules.render_report.output,
        rules.summarise.output,
        SEARCH.export_folders(),
        SEARCH.index_files(),


rule annotations:
    input:
        rules.convert.output,


rule shards:
    input:
        expand(rules.write_shards.output, split=PLAN.splits),


rule features:
    input:
        PLAN.feature_files(),


rule models:
    input:
        PLAN.run_files("best.safetensors"),


rule scores:
    input:
        PLAN.score_files(".json"),
        rules.summarise.output,


rule report:
    input:
        rules.render_report.output,


rule exports:
    input:
        SEARCH.export_folders(),


rule search:
    input:
        SEARCH.index_files(),


rule sweep:
    input:
        SWEEP.summary_files(),
