# Some benchmarks need only the annotations to know that they cannot score a data set. This rule runs first, so that
# such data stop the workflow before anything is trained.
rule check_benchmark:
    "Whether a benchmark can score the data set, before anything is trained."
    input:
        PLAN.tables(),
        lambda wildcards: PLAN.benchmark_files(wildcards.benchmark),
    output:
        f"{DATA}/checks/{{benchmark}}.json",
    log:
        log_of("check_benchmark", "{benchmark}"),
    benchmark:
        timing_of("check_benchmark", "{benchmark}")
    priority: PRIORITY["tables"]
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        script=f"{SCRIPTS}/check_benchmark.py",
        mem_mb=2000,
        runtime=30,
    params:
        settings=lambda wildcards: PLAN.settings_json(wildcards.benchmark),
        data=data_folder,
    shell:
        "python {resources.script} {wildcards.benchmark} --data {params.data} --settings {params.settings:q}"
        " --output {output} > {log} 2>&1"


# The texts that models embed for a benchmark besides captions: prompts of classes, and captions of the user's own
# table. Tables that do not fit the data stop the workflow before anything is trained.
rule write_benchmark_texts:
    "The texts that a benchmark asks of the models besides captions."
    input:
        PLAN.tables(),
        lambda wildcards: expand(
            str(BENCHMARK_FOLDER.table("images")),
            data=PLAN.images_of(PLAN.written_texts[wildcards.table]),
        ),
        lambda wildcards: PLAN.text_sources(PLAN.written_texts[wildcards.table]),
    output:
        str(PLAN.folder.table("{table}")),
    log:
        log_of("write_benchmark_texts", "{table}"),
    benchmark:
        timing_of("write_benchmark_texts", "{table}")
    wildcard_constraints:
        table=one_of(PLAN.written_texts),
    priority: PRIORITY["tables"]
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        script=f"{SCRIPTS}/write_benchmark_texts.py",
        mem_mb=2000,
        runtime=30,
    params:
        benchmark=lambda wildcards: PLAN.written_texts[wildcards.table],
        settings=lambda wildcards: PLAN.settings_json(
            PLAN.written_texts[wildcards.table]
        ),
        data=data_folder,
    shell:
        "python {resources.script} {params.benchmark} --data {params.data} --settings {params.settings:q} > {log} 2>&1"


# One rule per benchmark. Each reads embeddings and tables, and writes the scores and the outcome of each query.
rule evaluate_itr:
    "Recall between images and texts of test."
    input:
        PLAN.tables(),
        PLAN.embeddings("itr"),
        run=f"{RUN}/run.json",
    output:
        scores=f"{RUN}/benchmarks/itr.json",
        queries=f"{RUN}/benchmarks/itr.queries.npz",
    log:
        log_of("evaluate_itr", "{experiment}/seed{seed}"),
    benchmark:
        timing_of("evaluate_itr", "{experiment}/seed{seed}")
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        script=f"{SCRIPTS}/evaluate.py",
        mem_mb=2000,
        runtime=60,
    params:
        benchmark="itr",
        settings=lambda wildcards: PLAN.settings_json("itr"),
        data=data_folder,
        folder=subpath(input.run, parent=True),
    shell:
        "python {resources.script} {params.benchmark} --data {params.data} --run-folder {params.folder}"
        " --output {output.scores} --queries {output.queries} --settings {params.settings:q} > {log} 2>&1"


use rule evaluate_itr as evaluate_eccv_caption with:
    "Retrieval with every right answer counted."
    input:
        ancient_if_moved(PLAN.tables("extended_positives", "judged_pairs")),
        ancient_if_moved(PLAN.embeddings("eccv_caption")),
        ancient_if_moved(checks_of("eccv_caption")),
        run=ancient_if_moved(f"{RUN}/run.json"),
    output:
        scores=f"{RUN}/benchmarks/eccv_caption.json",
        queries=f"{RUN}/benchmarks/eccv_caption.queries.npz",
    log:
        log_of("evaluate_eccv_caption", "{experiment}/seed{seed}"),
    benchmark:
        timing_of("evaluate_eccv_caption", "{experiment}/seed{seed}")
    params:
        benchmark="eccv_caption",
        settings=lambda wildcards: PLAN.settings_json("eccv_caption"),
        data=data_folder,
        folder=subpath(input.run, parent=True),


use rule evaluate_itr as evaluate_image_retrieval with:
    "Retrieval of images of the same class by an image."
    input:
        ancient_if_moved(PLAN.tables()),
        ancient_if_moved(PLAN.embeddings("image_retrieval")),
        ancient_if_moved(
            expand(
                str(BENCHMARK_FOLDER.table("images")),
                data=PLAN.images_of("image_retrieval"),
            )
        ),
        run=ancient_if_moved(f"{RUN}/run.json"),
    output:
        scores=f"{RUN}/benchmarks/image_retrieval.json",
        queries=f"{RUN}/benchmarks/image_retrieval.queries.npz",
    log:
        log_of("evaluate_image_retrieval", "{experiment}/seed{seed}"),
    benchmark:
        timing_of("evaluate_image_retrieval", "{experiment}/seed{seed}")
    params:
        benchmark="image_retrieval",
        settings=lambda wildcards: PLAN.settings_json("image_retrieval"),
        data=data_folder,
        folder=subpath(input.run, parent=True),


use rule evaluate_itr as evaluate_sts with:
    "Correlation of the similarity of sentences with what people say."
    input:
        ancient_if_moved(PLAN.tables("sentence_pairs")),
        ancient_if_moved(PLAN.embeddings("sts")),
        ancient_if_moved(
            expand(
                str(BENCHMARK_FOLDER.table("sentence_pairs")), data=PLAN.sentence_pairs
            )
        ),
        run=ancient_if_moved(f"{RUN}/run.json"),
    output:
        scores=f"{RUN}/benchmarks/sts.json",
        queries=f"{RUN}/benchmarks/sts.queries.npz",
    log:
        log_of("evaluate_sts", "{experiment}/seed{seed}"),
    benchmark:
        timing_of("evaluate_sts", "{experiment}/seed{seed}")
    params:
        benchmark="sts",
        settings=lambda wildcards: PLAN.settings_json("sts"),
        data=data_folder,
        folder=subpath(input.run, parent=True),


use rule evaluate_itr as evaluate_zero_shot_classification with:
    "Classes of images by their names."
    input:
        ancient_if_moved(PLAN.tables("class_prompts")),
        ancient_if_moved(PLAN.embeddings("zero_shot_classification")),
        ancient_if_moved(
            expand(
                str(BENCHMARK_FOLDER.table("images")),
                data=PLAN.images_of("zero_shot_classification"),
            )
        ),
        run=ancient_if_moved(f"{RUN}/run.json"),
    output:
        scores=f"{RUN}/benchmarks/zero_shot_classification.json",
        queries=f"{RUN}/benchmarks/zero_shot_classification.queries.npz",
    log:
        log_of("evaluate_zero_shot_classification", "{experiment}/seed{seed}"),
    benchmark:
        timing_of("evaluate_zero_shot_classification", "{experiment}/seed{seed}")
    params:
        benchmark="zero_shot_classification",
        settings=lambda wildcards: PLAN.settings_json("zero_shot_classification"),
        data=data_folder,
        folder=subpath(input.run, parent=True),


use rule evaluate_itr as evaluate_linear_probe with:
    "Classes of images by a logistic regression on embeddings."
    input:
        ancient_if_moved(PLAN.tables()),
        ancient_if_moved(PLAN.embeddings("linear_probe")),
        ancient_if_moved(checks_of("linear_probe")),
        ancient_if_moved(
            expand(
                str(BENCHMARK_FOLDER.table("images")),
                data=PLAN.images_of("linear_probe"),
            )
        ),
        run=ancient_if_moved(f"{RUN}/run.json"),
    output:
        scores=f"{RUN}/benchmarks/linear_probe.json",
        queries=f"{RUN}/benchmarks/linear_probe.queries.npz",
    log:
        log_of("evaluate_linear_probe", "{experiment}/seed{seed}"),
    benchmark:
        timing_of("evaluate_linear_probe", "{experiment}/seed{seed}")
    params:
        benchmark="linear_probe",
        settings=lambda wildcards: PLAN.settings_json("linear_probe"),
        data=data_folder,
        folder=subpath(input.run, parent=True),


# The benchmarks of `benchmarks.more`: those of installed packages and of Python files.
use rule evaluate_itr as evaluate_added with:
    "The score of a benchmark of a package, or of a Python file."
    input:
        ancient_if_moved(PLAN.tables()),
        ancient_if_moved(lambda wildcards: PLAN.embeddings(wildcards.benchmark)),
        ancient_if_moved(lambda wildcards: checks_of(wildcards.benchmark)),
        ancient_if_moved(lambda wildcards: PLAN.benchmark_files(wildcards.benchmark)),
        run=ancient_if_moved(f"{RUN}/run.json"),
    output:
        scores=f"{RUN}/benchmarks/{{benchmark}}.json",
        queries=f"{RUN}/benchmarks/{{benchmark}}.queries.npz",
    log:
        log_of("evaluate_added", "{experiment}/seed{seed}/{benchmark}"),
    benchmark:
        timing_of("evaluate_added", "{experiment}/seed{seed}/{benchmark}")
    wildcard_constraints:
        benchmark=one_of(PLAN.added),
    params:
        benchmark="{benchmark}",
        settings=lambda wildcards: PLAN.settings_json(wildcards.benchmark),
        data=data_folder,
        folder=subpath(input.run, parent=True),
