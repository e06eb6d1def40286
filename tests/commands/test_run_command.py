"""`cusa run`: every argument is Snakemake's, and what it adds is only what is not given."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cusa.commands import running
from cusa.commands.running import run, says_how_much, snakemake_arguments
from cusa.commands.targets import OF_FILES, OF_RULES, require_known_targets, rules_with_targets, targets
from cusa.errors import ConfigurationError, DataError
from cusa.plan.reasons import SECTIONS

ROOT = Path(__file__).parents[2]
CUSA = Path(sys.executable).parent / "cusa"
SNAKEFILE = ["--snakefile", str(ROOT / "Snakefile")]
FLAGS = ["--show-failed-logs", "--rerun-incomplete", "--keep-going"]
SHORT = ["--quiet", "rules", "host", *FLAGS]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """An empty folder as the working directory, and no profiles of the user's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("SNAKEMAKE_PROFILE", raising=False)
    return tmp_path


def test_without_arguments_it_runs_the_workflow_on_all_cores():
    assert snakemake_arguments([]) == [*SNAKEFILE, "--cores", "all", *SHORT]


def test_arguments_stay_as_they_are_and_in_their_order():
    given = ["-n", "train", "--config", "train={epochs: 3}", "seeds=[1, 2]", "--forcerun", "train", "--", "report"]
    assert snakemake_arguments(given) == [*SNAKEFILE, "--cores", "all", *FLAGS, *given]


@pytest.mark.parametrize(
    "given",
    [
        ["--cores", "2"], ["--cores=2"], ["--core", "2"], ["-c", "2"], ["-c2"], ["-nc2"], ["-c", "all"],
        ["-j", "4"], ["-j4"], ["--jobs", "4"], ["-npj", "4"], ["--executor", "slurm"], ["-e", "slurm"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_cores_jobs_or_an_executor_leave_nothing_to_add(given):
    assert says_how_much(given)
    told = FLAGS if re.match("-n", given[0]) else SHORT
    assert snakemake_arguments(given) == [*SNAKEFILE, *told, *given]


@pytest.mark.parametrize(
    "given", [["--config", "a=1"], ["--configfile", "x.yaml"], ["-n"], ["-F"], ["--", "-c2"], ["-k"]], ids=" ".join
)
def test_other_arguments_say_nothing_about_cores(given):
    assert not says_how_much(given)


def test_a_snakefile_of_the_users_own_goes_first():
    assert snakemake_arguments(["-s", "mine.smk", "-c1"]) == [*SHORT, "-s", "mine.smk", "-c1"]
    assert snakemake_arguments(["--snakefile=mine.smk", "-c1"]) == [*SHORT, "--snakefile=mine.smk", "-c1"]


@pytest.mark.parametrize("name", ["slurm", "workflow/profiles/slurm"])
@pytest.mark.parametrize("option", ["--profile", "--workflow-profile"])
def test_the_profiles_of_the_workflow_go_by_their_names_in_any_folder(option, name):
    """That of Slurm names an executor, so that no cores are added."""
    found = str(ROOT / "workflow/profiles/slurm")
    assert snakemake_arguments([option, name]) == [*SNAKEFILE, option, found]
    assert snakemake_arguments([f"{option}={name}"]) == [*SNAKEFILE, f"{option}={found}"]


def test_profiles_of_the_user_go_before_those_of_the_workflow(folder, monkeypatch):
    (folder / "xdg/snakemake/slurm").mkdir(parents=True)
    profile = folder / "xdg/snakemake/slurm/config.yaml"
    profile.write_text("printshellcmds: true")
    given = snakemake_arguments(["--profile", "slurm"])
    assert given[-2:] == ["--profile", str(profile.parent)]
    assert "--cores" in given
    profile.write_text("cores: 2")
    assert "--cores" not in snakemake_arguments(["--profile", "slurm"])
    monkeypatch.setenv("SNAKEMAKE_PROFILE", "gpu")
    assert snakemake_arguments([]) == [*SNAKEFILE, "--cores", "all"]


def test_a_profile_that_snakemake_takes_unasked_is_not_replaced(folder):
    (folder / "profiles/default").mkdir(parents=True)
    (folder / "profiles/default/config.yaml").write_text("cores: 1")
    assert snakemake_arguments([]) == SNAKEFILE


def test_a_profile_says_how_many_cores_there_are(folder):
    (folder / "lab").mkdir()
    (folder / "lab/config.v8+.yaml").write_text("cores: 3")
    assert says_how_much(["--profile", "lab"])
    (folder / "lab/config.v8+.yaml").write_text("keep-going: [")  # Snakemake says what is wrong with it
    assert not says_how_much(["--profile", "lab"])


def test_overlays_of_the_workflow_are_found_and_own_files_go_first(folder):
    (folder / "mine.yaml").write_text("seeds: [1]")
    given = ["--configfile", "config/coco.yaml", "mine.yaml", "--config", "config/coco.yaml=1"]
    coco = str(ROOT / "config/coco.yaml")
    assert snakemake_arguments(given)[-5:] == ["--configfile", coco, *given[2:]]
    assert snakemake_arguments(["--configfiles=config/coco.yaml"])[-1] == f"--configfiles={coco}"
    assert snakemake_arguments(["--", "config/coco.yaml"])[-1] == "config/coco.yaml"


def test_a_missing_file_and_a_target_behind_a_file_are_a_sentence(folder):
    (folder / "mine.yaml").write_text("seeds: [1]")
    with pytest.raises(ConfigurationError, match=r"^features does not exist .* write targets before it\.$"):
        snakemake_arguments(["--configfile", "mine.yaml", "features"])


def test_the_printed_line_is_what_runs(folder):
    done = subprocess.run([CUSA, "run", "--print-command", "-n", "report"], capture_output=True, text=True, check=True)
    words = shlex.split(done.stdout)
    assert Path(words[0]).name == "snakemake"
    assert words[1:] == [*SNAKEFILE, "--cores", "all", *FLAGS, "-n", "report"]
    assert not list(folder.iterdir())


def test_help_is_that_of_the_command():
    done = subprocess.run([CUSA, "run", "--help"], capture_output=True, text=True, check=True)
    assert "--print-command" in done.stdout
    assert "snakemake --help" in done.stdout


def test_it_runs_snakemake_in_any_folder_and_says_that_it_takes_all_cores(folder, tiny_configuration):
    (folder / "mine.yaml").write_text(yaml.safe_dump(tiny_configuration))
    command = [CUSA, "run", "--configfile", "mine.yaml", "-n", "annotations"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "cusa run: no --cores given, so all cores are used (" in done.stderr
    assert "results/shapes/annotations/images.parquet" in done.stdout
    wrong = subprocess.run([*command, "--cores", "1", "--nonsense"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2, "the exit status is Snakemake's"
    assert "--nonsense" in wrong.stderr
    assert "no --cores given" not in wrong.stderr


@pytest.mark.parametrize(
    "given", [["-p"], ["--printshellcmds"], ["--quiet", "all"], ["-n"], ["--logger", "rich"], ["--verbose"]]
)
def test_what_the_arguments_say_about_the_screen_holds(given):
    assert snakemake_arguments(["-c1", *given]) == [*SNAKEFILE, *FLAGS, "-c1", *given]


def test_a_terminal_gets_a_live_view(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert snakemake_arguments(["-c1"]) == [*SNAKEFILE, "--logger", "rich", *FLAGS, "-c1"]
    monkeypatch.setattr(running, "find_spec", lambda name: None)
    assert snakemake_arguments(["-c1"]) == [*SNAKEFILE, *SHORT, "-c1"]


def test_a_failure_ends_with_the_programs_sentence_its_log_and_how_to_continue(folder, tiny_configuration):
    train = {**tiny_configuration["train"], "batch_size": 4096}
    (folder / "mine.yaml").write_text(yaml.safe_dump({**tiny_configuration, "train": train}))
    command = [CUSA, "run", "shards", "--cores", "1", "--configfile", "mine.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    place = next(place for place, line in enumerate(lines) if line.startswith("    the log: "))
    assert lines[place - 1].startswith("Error: ")
    assert "a step takes 4,096" in lines[place - 1]
    assert re.fullmatch(r"    the log: results/shapes/logs/write_shards/\w+.log, and the same in 2 more", lines[place])
    assert lines[place + 1 : place + 3] == [
        "What is done is kept. To continue from there:",
        "    cusa run shards --cores 1 --configfile mine.yaml",
    ]
    assert "Shell command" not in done.stdout + done.stderr


def test_a_job_that_is_killed_ends_with_a_sentence_and_its_log(folder, tiny_configuration):
    """As the kernel ends a process when memory runs out: the process writes nothing."""
    (folder / "mine.yaml").write_text(yaml.safe_dump(tiny_configuration))
    killing = "import os, sys\nif any(word.endswith('convert.py') for word in sys.orig_argv): os.kill(os.getpid(), 9)\n"
    (folder / "before").mkdir()
    (folder / "before/sitecustomize.py").write_text(killing)
    path = os.pathsep.join([str(folder / "before"), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [CUSA, "run", "annotations", "--cores", "1", "--configfile", "mine.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    place = next(place for place, line in enumerate(lines) if line.startswith("    the log: "))
    assert lines[place - 1].startswith("Error: convert/convert was ended by SIGKILL, as the system does when memory ")
    assert lines[place] == "    the log: results/shapes/logs/convert/convert.log"
    assert lines[place + 1] == "What is done is kept. To continue from there:"
    for noise in ("Conda environments", "Singularity containers", "Rules claiming more threads", "Using shell"):
        assert noise not in done.stderr


def test_without_snakemake_it_is_a_sentence(monkeypatch):
    monkeypatch.setattr(running, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="snakemake is not installed here"):
        run([])


@pytest.mark.skipif(os.access("/proc/sys", os.W_OK), reason="/proc/sys can be written here: NOT tested")
def test_a_folder_that_cannot_be_written_is_a_sentence():
    with pytest.raises(DataError, match=r"/proc/sys cannot be written .* choose another place: --directory"):
        run(["--directory", "/proc/sys", "-n"])


def test_options_that_show_something_write_nothing(monkeypatch):
    started = []
    monkeypatch.setenv("CUSA_RUN", "")  # `run` sets it, for the rest of the process
    monkeypatch.setattr(os, "execv", lambda program, words: started.append(words[-1]))
    monkeypatch.setattr(running, "require_writable", lambda *_: pytest.fail("nothing is written"))
    run(["--list-rules"])
    run(["--version"])
    assert started == ["--list-rules", "--version"]


def test_a_lock_is_told_with_the_command_that_removes_it(folder, tiny_configuration):
    (folder / "mine.yaml").write_text(yaml.safe_dump(tiny_configuration))
    (folder / ".snakemake/locks").mkdir(parents=True)
    (folder / ".snakemake/locks/0.output.lock").write_text("results/shapes/annotations/images.parquet\n")
    command = [CUSA, "run", "annotations", "--cores", "1", "--configfile", "mine.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"{folder} is locked: another run makes the same files, or one was killed" in done.stderr
    assert "    cusa run annotations --cores 1 --configfile mine.yaml --unlock\n" in done.stderr
    assert "LockException" not in done.stderr
    unlocked = subprocess.run([*command, "--unlock"], capture_output=True, text=True, check=True)
    assert "Unlocked working directory." in unlocked.stderr
    subprocess.run(command, capture_output=True, check=True)


def said_by(given, folder, capsys) -> str:
    with pytest.raises(ConfigurationError) as raised:
        run(["--print-command", *given])
    return str(raised.value)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["trainn"], "trainn is neither a target nor a file. Did you mean models?"),
        (["-n", "modelx", "--quiet", "rules"], "modelx is neither a target nor a file. Did you mean models?"),
        (["train"], "train is a rule whose jobs are for one file each. Did you mean models?"),
        (["train", "models"], "train is a rule"),
        (
            ["extract_image_part"],
            "extract_image_part is a rule whose jobs are for one file each. Did you mean features?",
        ),
        (["embed_more"], "embed_more is a rule whose jobs are for one file each. Did you mean scores?"),
        (
            ["write_benchmark_shards"],
            "write_benchmark_shards is a rule whose jobs are for one file each. Did you mean sc",
        ),
        (["xyz"], "xyz is neither a target nor a file. The targets are all, annotations, shards"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistyped_target_is_answered_with_the_near_one(given, says, folder, capsys):
    assert said_by(given, folder, capsys).startswith(says)


@pytest.mark.parametrize(
    "given", [["models"], ["convert"], ["results/a/b.json"], ["--quiet", "rules"], ["--forcerun", "train", "-n"]],
    ids=" ".join,
)  # fmt: skip
def test_targets_files_and_values_of_options_are_handed_on(given, capsys):
    run(["--print-command", *given])
    assert shlex.split(capsys.readouterr().out)[-len(given) :] == given


@pytest.mark.parametrize("option", [["--directory", "there"], ["--directory=there"], ["-d", "there"], ["-nd", "there"]])
def test_files_are_looked_for_in_the_directory_that_is_named(option, folder, capsys):
    (folder / "config").mkdir()
    (folder / "config/config.yaml").write_text("a: [")
    (folder / "here.json").touch()
    (folder / "there").mkdir()
    (folder / "there/there.json").touch()
    run(["--print-command", "there.json", *option])
    assert said_by(["here.json", *option], folder, capsys).startswith("here.json is neither a target nor a file")
    (folder / "there/config").mkdir()
    (folder / "there/config/config.yaml").write_text("b: [")
    assert said_by(["models", *option], folder, capsys).startswith("there/config/config.yaml cannot be read as YAML")


def test_rules_and_targets_are_those_of_the_snakefile(folder, tiny_configuration):
    (folder / "mine.yaml").write_text(yaml.safe_dump(tiny_configuration))
    words = [CUSA.with_name("snakemake"), *SNAKEFILE, "--cores", "1", "--configfile", "mine.yaml"]
    listed = [
        set(
            re.findall(
                r"^\w+", subprocess.run([*words, option], capture_output=True, text=True, check=True).stdout, re.M
            )
        )
        for option in ("--list-rules", "--list-target-rules")
    ]
    all_rules, without_wildcards = listed
    rules = rules_with_targets()
    assert {*targets(), *rules} == all_rules
    assert {*targets(), *(name for name, rule in rules.items() if not rule.has_wildcards)} == without_wildcards
    assert {*OF_FILES.values(), *OF_RULES.values()} < set(targets())
    assert OF_RULES.keys() < rules.keys()
    assert SECTIONS.keys() < rules.keys()
    of_shards = {name for name in rules if re.search("write_shards|join_shards|benchmark_shards", name)}
    assert of_shards == {name for name, section in SECTIONS.items() if section == "shards"}


def test_keys_with_dots_become_mappings_which_snakemake_takes():
    given = ["--config", "train.epochs=3", "train.lr=1e-5", "seeds=[1]", "dataset.image_root=a, b", "-n"]
    expected = [
        "--config", 'train={"epochs": 3}', 'train={"lr": "1e-5"}', "seeds=[1]", 'dataset={"image_root": "a, b"}', "-n",
    ]  # fmt: skip
    assert snakemake_arguments(given)[-6:] == expected
    assert snakemake_arguments(["-C", "a.b.c=1"])[-2:] == ["-C", 'a={"b": {"c": 1}}']
    assert snakemake_arguments(["--config=a.b=1"])[-1] == '--config=a={"b": 1}'


@pytest.mark.parametrize("kind", ["a folder", "no YAML", "empty", "not UTF-8", "a list", "a link to a file"])
@pytest.mark.parametrize("own", [False, True], ids=["overlay", "config.yaml"])
def test_a_configuration_that_cannot_be_read_is_one_sentence(kind, own, folder, capsys):
    path = folder / ("config/config.yaml" if own else "mine.yaml")
    path.parent.mkdir(exist_ok=True)
    if kind == "a folder":
        path.mkdir()
    elif kind == "a link to a file":
        path.symlink_to("nowhere")
    else:
        path.write_bytes({"no YAML": b"a: {", "empty": b"", "not UTF-8": b"\xff\xfe", "a list": b"- 1"}[kind])
    said = said_by([] if own else ["--configfile", "mine.yaml"], folder, capsys)
    assert said.startswith(str(path.relative_to(folder)))
    what = {"no YAML": "cannot be read as YAML", "not UTF-8": "is not UTF-8", "empty": "is empty", "a list": "a list"}
    missing = "a link to a file that is not there" if own else "does not exist"
    assert {**what, "a folder": "is a folder", "a link to a file": missing}[kind] in said


def test_words_behind_a_value_that_is_attached_are_targets(folder):
    (folder / "mine.yaml").write_text("seeds: [1]\n")
    (folder / "best.safetensors").write_bytes(b"\xc0")
    given = ["-n", "--configfile=mine.yaml", "best.safetensors"]
    assert snakemake_arguments(given)[-3:] == given


def test_a_target_behind_a_setting_is_told_where_it_belongs():
    with pytest.raises(ConfigurationError, match=r"^--config: shards is not KEY=VALUE.* write targets before it\.$"):
        snakemake_arguments(["--config", "train.epochs=3", "shards"])


def test_a_configuration_in_the_place_of_a_target_is_told_with_its_option(tmp_path):
    (tmp_path / "my birds.yaml").write_text("seeds: [3]\n")
    with pytest.raises(ConfigurationError, match="not a target; name it by `--configfile 'my birds.yaml'`"):
        require_known_targets(["my birds.yaml"], tmp_path)
    require_known_targets(["models", "--configfile", "my birds.yaml"], tmp_path)
    best = tmp_path / "results/birds/sweeps/lr/best.yaml"
    best.parent.mkdir(parents=True)
    best.write_text("seeds: [3]\n")
    require_known_targets([str(best.relative_to(tmp_path))], tmp_path)
