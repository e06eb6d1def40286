# Jobs in a container, with `--sdm apptainer`. The image has the packages of the environments in envs/; the library and the
# programs are those of this machine, which jobs find at the same paths.
from shutil import which

CONTAINER = environ.get("CUSA_CONTAINER", "cusa.sif")

if DeploymentMethod.APPTAINER in DEPLOYMENT:
    if "://" not in CONTAINER and not os.path.exists(CONTAINER):
        environments = f"{WORKFLOW_FOLDER}/envs"
        stop(
            f"{CONTAINER}, the image of --sdm apptainer, does not exist; make it with `apptainer build --build-arg "
            f"environments={environments} {CONTAINER} {environments}/apptainer.def`, or say in CUSA_CONTAINER where one is."
        )
    # Apptainer reads its options from the environment, too: folders to show, and whether there are GPUs of NVIDIA.
    program = "APPTAINER" if which("apptainer") else "SINGULARITY"
    shown = [environ.get(f"{program}_BIND"), WORKFLOW_FOLDER, str(PACKAGE)]
    environ[f"{program}_BIND"] = ",".join(filter(None, shown))
    if available():
        environ[f"{program}_NV"] = "1"


container: CONTAINER
