# One rule a benchmark, all alike: cached embeddings and annotations in, one JSON file out.
def benchmark_inputs(benchmark):
    """Embeddings that a benchmark scores (and nothing where it is switched off)."""
    return expand(f"{RUN}/embeddings/{{data}}", data=BENCHMARK_DATA.get(benchmark, ()), allow_missing=True)


rule evaluate_itr:
    input:
        annotation_tables(),
        benchmark_inputs("itr"),
        run=f"{RUN}/run.json",
    output:
        f"{RUN}/benchmarks/itr.json",
    params:
        benchmark="itr",
        data=DATA,
        folder=RUN,
    log:
        log_of("evaluate_itr", "{experiment}/seed{seed}"),
    benchmark:
        timing_of("evaluate_itr", "{experiment}/seed{seed}")
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    conda:
        "../../envs/data.yaml"
    shell:
        "python {SCRIPTS}/evaluate.py {params.benchmark} --data {params.data} --run-folder {params.folder}"
        " --output {output} > {log} 2>&1"


use rule evaluate_itr as evaluate_eccv_caption with:
    input:
        annotation_tables("extended_positives"),
        benchmark_inputs("eccv_caption"),
        run=f"{RUN}/run.json",
    output:
        f"{RUN}/benchmarks/eccv_caption.json",
    params:
        benchmark="eccv_caption",
        data=DATA,
        folder=RUN,
    log:
        log_of("evaluate_eccv_caption", "{experiment}/seed{seed}"),
    benchmark:
        timing_of("evaluate_eccv_caption", "{experiment}/seed{seed}")


use rule evaluate_itr as evaluate_image_retrieval with:
    input:
        annotation_tables(),
        benchmark_inputs("image_retrieval"),
        run=f"{RUN}/run.json",
    output:
        f"{RUN}/benchmarks/image_retrieval.json",
    params:
        benchmark="image_retrieval",
        data=DATA,
        folder=RUN,
    log:
        log_of("evaluate_image_retrieval", "{experiment}/seed{seed}"),
    benchmark:
        timing_of("evaluate_image_retrieval", "{experiment}/seed{seed}")


use rule evaluate_itr as evaluate_sts with:
    input:
        annotation_tables("sentence_pairs"),
        benchmark_inputs("sts"),
        run=f"{RUN}/run.json",
    output:
        f"{RUN}/benchmarks/sts.json",
    params:
        benchmark="sts",
        data=DATA,
        folder=RUN,
    log:
        log_of("evaluate_sts", "{experiment}/seed{seed}"),
    benchmark:
        timing_of("evaluate_sts", "{experiment}/seed{seed}")
