# The GPUs of jobs on one machine, and the machines of a training job.
import shutil

from cusa.devices import available

# On one machine, Snakemake does not know how many GPUs there are. A cluster counts its GPUs itself.
COUNTS_GPUS = (
    PLAN.gpus_of_largest_job and workflow.is_main_process and workflow.local_exec
)
GPUS_HERE = available() if COUNTS_GPUS else 0
if GPUS_HERE and "gpu" not in workflow.global_resources:
    workflow.register_resource("gpu", GPUS_HERE)


def require_devices():
    """Stop if the GPUs or srun are missing. Otherwise Snakemake would silently give a job fewer GPUs than it needs."""
    if NODES > 1 and shutil.which("srun") is None:
        stop(
            f"train.nodes is {NODES}, which Slurm's srun starts, but there is no srun here; use "
            "--workflow-profile workflow/profiles/slurm on a cluster, or set train.nodes: 1."
        )
    if not COUNTS_GPUS:
        return
    wanted = PLAN.gpus_of_largest_job
    if wanted > GPUS_HERE:
        stop(
            f"train.gpus asks for {wanted} GPUs, but this machine has {GPUS_HERE}; lower train.gpus, or run "
            "nvidia-smi to see why."
        )
    if wanted > (given := workflow.global_resources["gpu"].value):
        stop(
            f"train.gpus asks for {wanted} GPUs, but --resources gpu={given} gives a job no more than {given}; give "
            "more, or lower train.gpus."
        )


def lease(gpus):
    """The start of a command that leases GPUs for a job. It leases none if Slurm has set the job's devices."""
    return f"python -m cusa.devices {int(gpus)}" if gpus else ""


# Several machines need Slurm: the job asks for all of them, and srun starts one torchrun with its own GPUs on each. They
# connect to the first machine, where the job's script runs.
NODES = CONFIGURATION.train.nodes
MACHINES = {"nodes": NODES}
RENDEZVOUS = ""
if NODES > 1:
    MACHINES |= {"tasks": NODES, "tasks_per_gpu": 0, "mpi": "srun"}
    RENDEZVOUS = "export SLURM_NNODES={resources.nodes} SRUN_CPUS_PER_TASK={threads}; "


LAUNCHED = re.compile(r"^[^{]*torchrun --nproc-per-node \d")


def launcher(wildcards):
    """The start of the command that trains an experiment."""
    weights = f"{RUN}/best.safetensors".format(**wildcards)
    return as_launched(CONFIGURATION.recipe(wildcards.experiment), weights)


def as_launched(recipe, output):
    """The start of a training's command. The record keeps its old text: the number of processes is in the
    configuration.

    So other devices or machines are no reason to train again.
    """
    command = launcher_of(recipe)
    before = (each for each in JOBS.params(output, str) if LAUNCHED.search(each))
    return Recorded(command, recorded=next(before, command.recorded))


def launcher_of(recipe):
    """The start of a training's command, after the lease of GPUs or srun: one process, or what starts several."""
    options = f"--nproc-per-node {recipe.processes_per_node}"
    if NODES == 1:
        program = "python"
        if recipe.processes_per_node > 1:
            program += f" -m cusa.training.launch {options} --standalone"
        leased = lease(recipe.gpus)
        return Recorded(
            f"{leased} {program}".strip(),
            recorded=f"{leased} torchrun {options} --standalone".strip(),
        )
    gpus = f" --gpus-per-task {recipe.gpus}" if recipe.gpus else ""
    srun = f"srun --ntasks {NODES}{gpus} --kill-on-bad-exit"
    options += (
        f" --nnodes {NODES} --rdzv-backend c10d --rdzv-id $SLURM_JOB_ID"
        " --rdzv-endpoint $(hostname):$((20000 + SLURM_JOB_ID % 20000))"
    )
    return Recorded(
        f"{srun} python -m cusa.training.launch {options}",
        recorded=f"{srun} torchrun {options}",
    )
