# One rule a benchmark, all alike: cached embeddings and annotations in, one JSON file out.
rule evaluate_itr:
    input:
        annotation_tables(),
        benchmark_inputs("itr"),
        run=f"{RUN}/run.json",
    output:
        f"{RUN}/benchmarks/itr.json",
    log:
        log_of("evaluate_itr", "{experiment}/seed{seed}"),
    benchmark:
        timing_of("evaluate_itr", "{experiment}/seed{seed}")
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        script=f"{SCRIPTS}/evaluate.py",
        benchmark="itr",
        data=data_folder,
        folder=subpath(input.run, parent=True),
    shell:
        "python {params.script} {params.benchmark} --data {params.data} --run-folder {params.folder}"
        " --output {output} > {log} 2>&1"


use rule evaluate_itr as evaluate_eccv_caption with:
    input:
        annotation_tables("extended_positives"),
        benchmark_inputs("eccv_caption"),
        run=f"{RUN}/run.json",
    output:
        f"{RUN}/benchmarks/eccv_caption.json",
    log:
        log_of("evaluate_eccv_caption", "{experiment}/seed{seed}"),
    benchmark:
        timing_of("evaluate_eccv_caption", "{experiment}/seed{seed}")
    params:
        script=f"{SCRIPTS}/evaluate.py",
        benchmark="eccv_caption",
        data=data_folder,
        folder=subpath(input.run, parent=True),


use rule evaluate_itr as evaluate_image_retrieval with:
    input:
        annotation_tables(),
        benchmark_inputs("image_retrieval"),
        run=f"{RUN}/run.json",
    output:
        f"{RUN}/benchmarks/image_retrieval.json",
    log:
        log_of("evaluate_image_retrieval", "{experiment}/seed{seed}"),
    benchmark:
        timing_of("evaluate_image_retrieval", "{experiment}/seed{seed}")
    params:
        script=f"{SCRIPTS}/evaluate.py",
        benchmark="image_retrieval",
        data=data_folder,
        folder=subpath(input.run, parent=True),


use rule evaluate_itr as evaluate_sts with:
    input:
        annotation_tables("sentence_pairs"),
        benchmark_inputs("sts"),
        run=f"{RUN}/run.json",
    output:
        f"{RUN}/benchmarks/sts.json",
    log:
        log_of("evaluate_sts", "{experiment}/seed{seed}"),
    benchmark:
        timing_of("evaluate_sts", "{experiment}/seed{seed}")
    params:
        script=f"{SCRIPTS}/evaluate.py",
        benchmark="sts",
        data=data_folder,
        folder=subpath(input.run, parent=True),
