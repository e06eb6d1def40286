rule summarise:
    input:
        results=run_files("benchmarks/{benchmark}.json"),
        queries=run_files("benchmarks/{benchmark}.queries.npz"),
        problems=f"{DATA}/annotations/problems.json",
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
        reference=(
            f"--reference {CONFIGURATION.report.reference}"
            if CONFIGURATION.report.reference in EXPERIMENTS + CHECKPOINTS
            else ""
        ),
        left_out=json.dumps(LEFT_OUT, sort_keys=True),
    shell:
        "python {resources.script} --annotations {params.annotations} --parquet {output.parquet}"
        " --markdown {output.markdown} --latex {output.latex} {params.reference} --left-out {params.left_out:q}"
        " {input.results} > {log} 2>&1"


# The gallery searches the test pictures by text and the labelled pictures (or the test pictures) by picture.
GALLERY_EXPERIMENTS = [
    name
    for name in CONFIGURATION.report.gallery.experiments
    if name in EXPERIMENTS + CHECKPOINTS
]
GALLERY_DATA = ["test"] + ["variants"] * ("variants" in SPLITS)


rule render_report:
    input:
        annotation_tables(),
        expand(
            f"{RUN}/embeddings/{{data}}",
            experiment=GALLERY_EXPERIMENTS,
            seed=CONFIGURATION.seeds[0],
            data=GALLERY_DATA,
        ),
        expand(f"{DATA}/shards/{{split}}", split=GALLERY_DATA),
        run_files("run.json"),
        run_files("history.parquet"),
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
                figure=["validation", "losses", "temperatures"],
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
        script=f"{SCRIPTS}/render_report.py",
        mem_mb=2000,
        runtime=10,
    params:
        gallery=as_json(CONFIGURATION.report.gallery),
        data=data_folder,
        figures=lambda wildcards, output: os.path.dirname(output.figures[0]),
        runs=lambda wildcards: run_files(""),
    shell:
        "python {resources.script} --data {params.data} --summary {input.summary} --gallery {params.gallery:q}"
        " --output {output.page} --figures {params.figures} {params.runs} > {log} 2>&1"
