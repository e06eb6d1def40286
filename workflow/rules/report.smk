import json


rule summarise:
    "The table of all benchmarks and runs, with means, spreads and intervals."
    input:
        results=PLAN.score_files(".json"),
        queries=PLAN.score_files(".queries.npz"),
        problems=f"{ANNOTATIONS}/problems.json",
    output:
        parquet=f"{DATA}/summary.parquet",
        markdown=report(
            f"{DATA}/summary.md", caption="../report/summary.rst", category="Results"
        ),
        latex=f"{DATA}/summary.tex",
    log:
        log_of("summarise", "summarise"),
    benchmark:
        timing_of("summarise", "summarise")
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        script=f"{SCRIPTS}/summarise.py",
        mem_mb=1000,
        runtime=10,
    params:
        annotations=subpath(input.problems, parent=True),
        reference=f"--reference {PLAN.reference}" if PLAN.reference else "",
        left_out=lambda wildcards: json.dumps(PLAN.left_out, sort_keys=True),
    shell:
        "python {resources.script} --annotations {params.annotations} --parquet {output.parquet}"
        " --markdown {output.markdown} --latex {output.latex} {params.reference} --left-out {params.left_out:q}"
        " {input.results} > {log} 2>&1"


# The gallery searches the test images by text, and the labelled images (or else the test images) by image.
rule render_report:
    "The page that compares the runs, and its figures."
    input:
        PLAN.tables(),
        expand(
            f"{RUN}/embeddings/{{data}}",
            experiment=PLAN.gallery_runs,
            seed=CONFIGURATION.seeds[0],
            data=PLAN.gallery_data,
        ),
        expand(SHARDS, split=PLAN.gallery_data),
        PLAN.run_files("run.json"),
        PLAN.run_files("history.parquet"),
        SWEEP.summary_files(),
        summary=f"{DATA}/summary.parquet",
    output:
        page=report(
            f"{DATA}/report/index.html",
            caption="../report/page.rst",
            category="Results",
        ),
        figures=report(
            expand(
                f"{DATA}/report/figures/{{figure}}.svg",
                figure=["validation", "losses", "temperatures", *SWEEP.figures],
            ),
            caption="../report/figure.rst",
            category="Training",
        ),
    log:
        log_of("render_report", "render_report"),
    benchmark:
        timing_of("render_report", "render_report")
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        # An option beside the path, not in the text of the command, which must stay the same without a sweep.
        script=f"{SCRIPTS}/render_report.py{SWEEP.report_option}",
        mem_mb=2000,
        runtime=10,
    params:
        gallery=lambda wildcards: CONFIGURATION.report.gallery.as_json(),
        data=data_folder,
        figures=lambda wildcards, output: os.path.dirname(output.figures[0]),
        runs=lambda wildcards: PLAN.run_files(),
    shell:
        "python {resources.script} --data {params.data} --summary {input.summary} --gallery {params.gallery:q}"
        " --output {output.page} --figures {params.figures} {params.runs} > {log} 2>&1"
