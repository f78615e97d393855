"""OS interaction in containers, with a `docker` that starts process namespaces of this machine.

What docker itself does (images, limits, no network) is not tested here: only that it is asked for.
"""

import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from gcd.core.errors import UserError
from gcd.tasks import os_interaction
from gcd.tasks.os_interaction.docker import DockerMachine, DockerSettings, require_image
from gcd.tasks.os_interaction.sandbox import SandboxError, SandboxSettings

IMAGE = "local-os/default"
SETTINGS = DockerSettings(image=IMAGE, memory="1g", cpus=2.0, processes=256)
LIMITS = SandboxSettings(
    user_id=61000,
    processes=64,
    memory_bytes=1 << 29,
    disk_bytes=1 << 24,
    file_bytes=1 << 23,
    open_files=128,
    cpu_seconds=20,
    command_seconds=2,
    silent_seconds=1,
    script_seconds=2,
    episode_seconds=30,
    output_bytes=1 << 12,
)


def install(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put `script` first on the PATH as docker; returns it."""
    program = folder / "docker"
    program.write_text(script)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    require_image.cache_clear()
    return program


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The fake; skips where it cannot make namespaces, for nothing must run outside of one."""
    probe = ["unshare", "--user", "--map-root-user", "--pid", "--mount", "--mount-proc", "--fork"]
    if not shutil.which("nsenter") or subprocess.run([*probe, "true"], check=False).returncode:
        pytest.skip("needs nsenter and unshare with user namespaces")
    script = Path(__file__).with_name("fake_docker.sh").read_text()
    yield install(tmp_path, script, monkeypatch)
    require_image.cache_clear()


@pytest.fixture
def machine(docker: Path) -> Iterator[DockerMachine]:
    with DockerMachine(IMAGE, SETTINGS, LIMITS) as running:
        yield running


def asked(docker: Path) -> list[str]:
    return docker.with_name("docker.log").read_text().splitlines()


# What docker is asked for.


def test_no_network_and_limits(docker, machine):
    run = next(line for line in asked(docker) if line.startswith("run "))
    assert run.startswith("run -dt --rm ")
    for option in ("--network none", "--memory 1g --memory-swap 1g", "--pids-limit 256"):
        assert f" {option} " in run
    assert " --cpus 2 " in run
    # The container outlives this program by no more than the episode's time.
    assert run.endswith(f" {IMAGE} sleep 30")


def test_the_container_is_removed(docker):
    with DockerMachine(IMAGE, SETTINGS, LIMITS) as running:
        container = running._container
        assert Path("/proc", container).exists()
    assert asked(docker)[-1] == f"rm -f {container}"
    assert not Path("/proc", container).exists()


# The agent's shell.


def test_the_shell_keeps_its_state(machine):
    assert machine.run("cd /usr; word='two  words'; f() { echo in f; }").text == ""
    assert machine.run('pwd; echo "$word"; f').text == "/usr\ntwo  words\nin f\n"


def test_exit_codes_and_both_streams(machine):
    output = machine.run("echo out; echo err >&2; (exit 3)")
    assert (output.text, output.exit_code, output.timed_out) == ("out\nerr\n", 3, False)
    assert machine.run("echo $?").text == "3\n"


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("echo 'it'\\''s'", "it's\n"),
        ("cat <<X\na b\nX", "a b\n"),
        ("echo a \\\n b", "a b\n"),
        ("printf 'no end'", "no end"),
        ("", ""),
        ("cat; read -r line", ""),  # there is no input
        ("echo ä | wc -c", "3\n"),
    ],
)
def test_commands_do_what_bash_does(machine, command, text):
    assert machine.run(command).text == text


def test_a_syntax_error_is_told(machine):
    assert "syntax error" in machine.run("if").text
    assert machine.run("echo still here").text == "still here\n"


def test_output_after_a_redirection_of_the_shell(machine):
    """The end of a command is told even where the shell's own output goes elsewhere."""
    assert machine.run("exec >/dev/null").exit_code == 0
    assert machine.run("echo lost").text == ""


def test_what_hangs_is_killed_and_the_shell_survives(machine):
    machine.run("kept=yes; sleep 77 &")
    output = machine.run("echo before; sleep 78; echo after")
    assert output.timed_out and output.exit_code is None
    assert output.text.startswith("before\n")
    # What an earlier command left in the background is still there.
    assert machine.run("echo $kept; jobs -r | wc -l").text == "yes\n1\n"


def test_a_shell_that_loops_is_replaced(machine):
    output = machine.run("gone=yes; while :; do :; done")
    assert output.timed_out and output.exit_code is None
    assert machine.run("echo [$gone]").text == "[]\n"


def test_a_shell_that_ends_is_replaced(machine):
    output = machine.run("echo bye; exit 4")
    assert (output.text, output.exit_code, output.timed_out) == ("bye\n", None, False)
    assert machine.run("echo again").text == "again\n"


def test_output_is_cut_and_the_rest_dropped(machine):
    output = machine.run("seq 100000; echo end")
    assert output.exit_code == 0
    assert len(output.text) == LIMITS.output_bytes


def test_an_agent_cannot_forge_the_end_of_a_command(machine):
    assert machine.run("echo 0123456789abcdef0123456789abcdef 0").exit_code == 0
    assert machine.run("printf x >&9").text.endswith("Bad file descriptor\n")


# Scripts.


def test_scripts_get_arguments_and_share_no_variables(machine):
    machine.run("word=set")
    output = machine.run_script('echo "[$1][$2][$word]"; exit 5', ["a b", "'"])
    assert (output.text, output.exit_code) == ("[a b]['][]\n", 5)


def test_python_scripts(machine):
    output = machine.run_script("import sys; print(sys.argv[1:])", ["1", "x"], "python")
    assert output.text == "['1', 'x']\n"


def test_a_script_that_hangs(machine):
    output = machine.run_script("echo begun; sleep 79", [])
    assert (output.text, output.exit_code, output.timed_out) == ("begun\n", None, True)


def test_nothing_of_the_agent_runs_during_checks(machine):
    machine.run("sleep 80 &")
    find = "grep -lzx 8[0] /proc/[0-9]*/cmdline | wc -l"
    assert machine.run_script(find, []).text == "1\n"
    machine.stop_agent()
    assert machine.run_script(find, []).text == "0\n"


def test_a_container_that_is_gone(docker, machine):
    subprocess.run(["docker", "rm", "-f", machine._container], check=True)
    with pytest.raises(SandboxError):
        machine.run_script("echo x", [])


# An episode.


def test_an_episode_in_a_container(docker):
    source = {
        "description": "How many lines?",
        "create": {"init": "echo one > /tmp/gcd-test-lines; echo two >> /tmp/gcd-test-lines"},
        "start": "word=started",
        "evaluation": {"check": [None, {"file": "check/integer-match.py", "language": "python"}],
                       "example": "wc -l < /tmp/gcd-test-lines; rm /tmp/gcd-test-lines"},
        "labels": ["easy", "lines"],
    }  # fmt: skip
    params = YAML(typ="safe").load(Path(__file__).parents[1] / "params.yaml")
    raw = params["tasks"]["os_interaction"] | {"backend": "docker"}
    settings = os_interaction.Settings.model_validate(raw)
    sample = os_interaction.OsSample(index="x", groups={}, source=source)
    with os_interaction.start(sample, settings) as played:
        assert played.details == {"backend": "docker", "sandbox": "docker"}
        ask = "Act: bash\n\n```bash\nwc -l < /tmp/gcd-test-lines; echo $word\n```"
        assert played.step(ask) == "The output of the OS:\n\n2\nstarted\n"
        assert played.step("Act: answer(2)") is None
    assert (played.status, played.score, played.error) == ("completed", 1.0, None)


def test_a_sample_may_name_its_image(docker):
    params = YAML(typ="safe").load(Path(__file__).parents[1] / "params.yaml")
    raw = params["tasks"]["os_interaction"] | {"backend": "docker"}
    settings = os_interaction.Settings.model_validate(raw)
    source = {"description": "x", "create": {"image": "local-os/packages"}, "labels": ["a", "b"]}
    with pytest.raises(UserError, match="no image local-os/packages"):
        os_interaction.start(os_interaction.OsSample(index="x", groups={}, source=source), settings)


# What cannot work.


def test_docker_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    require_image.cache_clear()
    with pytest.raises(UserError, match="needs the `docker` program"):
        DockerMachine(IMAGE, SETTINGS, LIMITS)


def test_the_daemon_does_not_run(tmp_path, monkeypatch):
    complaint = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock."
    install(tmp_path, f"#!/bin/bash\necho '{complaint}' >&2\nexit 1\n", monkeypatch)
    with pytest.raises(UserError, match=f"docker image failed: {complaint}"):
        DockerMachine(IMAGE, SETTINGS, LIMITS)


def test_an_image_that_is_not_built(docker):
    with pytest.raises(UserError, match=r"docker build -t local-os/packages -f .*/packages "):
        DockerMachine("local-os/packages", SETTINGS, LIMITS)
