# Trained models for other programs, and for queries: an ONNX model starts without PyTorch.
rule export_model:
    "A run as a folder that other programs load."
    input:
        lambda wildcards: SEARCH.export_inputs(wildcards.experiment, wildcards.format),
        weights=f"{RUN}/best.safetensors",
        run=f"{RUN}/run.json",
    output:
        directory(f"{RUN}/exports/{{format}}"),
    log:
        log_of("export_model", "{experiment}/seed{seed}/{format}"),
    benchmark:
        timing_of("export_model", "{experiment}/seed{seed}/{format}")
    wildcard_constraints:
        experiment=one_of(SEARCH.across_modalities),
        format="onnx|sentence-transformers|safetensors",
    priority: PRIORITY["exports"]
    conda:
        TORCH_ENVIRONMENT
    threads: 1
    resources:
        script=f"{SCRIPTS}/export_model.py",
        mem_mb=8000,
        runtime=60,
    params:
        folder=subpath(input.run, parent=True),
        options=lambda wildcards: SEARCH.export_options(wildcards.format),
    shell:
        "python {resources.script} --run-folder {params.folder} --to {wildcards.format} --output {output} {params.options}"
        " > {log} 2>&1"
