"""The agent's persistent shell, whatever the agent does to it, and scripts that it cannot touch."""

import time
from collections.abc import Iterator

import pytest

from gcd.tasks.os_interaction.sandbox import Output, Sandbox
from tests.sandboxes import SETTINGS


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox(SETTINGS) as running:
        yield running


# A persistent shell, whatever the agent does to it.


def test_state_stays(box: Sandbox) -> None:
    box.run("cd /tmp; word='a  b'; f() { echo from f; }; sleep 50 &")
    output = box.run('pwd; echo "$word"; f; jobs -p | wc -l')
    assert output == Output("/tmp\na  b\nfrom f\n1\n", 0, False)
    box.run("(exit 3)")
    assert box.run("echo $?").text == "3\n"


def test_text_goes_in_and_out_unchanged(box: Sandbox) -> None:
    text = "äöü 'single' \"double\" \\n $HOME `x` ! \t€"
    assert box.run(f"cat <<'EOF'\n{text}\nEOF").text == text + "\n"
    assert box.run_script('printf %s "$2"', ["x", text + "\n"]).text == text + "\n"
    assert box.run("printf '\\377\\000a\\033[1mb\\033[0m'").text == "\ufffdab"
    assert box.run("echo one >&2; echo two").text == "one\ntwo\n"
    assert box.run("").text == ""


@pytest.mark.parametrize("command", ["exit 3", "exec ls /tmp", "kill -9 $$", "set -e; false"])
def test_a_dead_shell_is_replaced_in_the_same_machine(box: Sandbox, command: str) -> None:
    box.run("echo kept > /tmp/file; cd /tmp")
    output = box.run(command)
    assert (output.exit_code, output.timed_out) == (None, False)
    assert box.run("pwd; cat /tmp/file") == Output("/root\nkept\n", 0, False)


@pytest.mark.parametrize(
    "command",
    [
        *("cat", "read x", "echo 'open", "cat <<EOF\nopen", "for", "exec 9>&-", "set -f"),
        "trap 'echo trapped' DEBUG EXIT; trap '' TERM; trap - DEBUG",
        *("echo 00000000000000000000000000000000 0", "echo gone", "IFS=x", "unset PATH HOME"),
        *("set -u; echo $nothing", "shopt -s extglob nullglob", "break; return; continue", "\0"),
        "unalias -a; cd /nowhere; umask 777; umask 022",
    ],
)
def test_clumsy_commands_do_not_disturb_the_next(box: Sandbox, command: str) -> None:
    assert not box.run(command).timed_out
    assert box.run("echo next").text == "next\n"


@pytest.mark.parametrize(
    "command",
    [
        *("while :; do :; done", "trap '' INT TERM HUP; sleep 60; sleep 60"),
        *("printf() { :; }", "exec 2>&- >&-; sleep 60", "kill -STOP $$"),
    ],
)
def test_what_hangs_is_stopped_and_the_next_command_runs(box: Sandbox, command: str) -> None:
    begin = time.monotonic()
    assert box.run(command).timed_out
    assert time.monotonic() - begin < 8
    box.run("exit")  # where the command closed the shell's own output, only a new one speaks
    assert box.run("echo next").text == "next\n"


def test_text_so_far_is_reported_and_the_shell_survives_a_timeout(box: Sandbox) -> None:
    box.run("word=kept; sleep 50 &")
    output = box.run("echo begun; sleep 60")
    assert output.timed_out
    assert output.exit_code is None
    assert output.text.startswith("begun\n")
    assert box.run("echo $word; jobs -p | wc -l").text == "kept\n1\n"


def test_a_background_writer_does_not_hold_up_the_shell(box: Sandbox) -> None:
    begin = time.monotonic()
    assert not box.run("yes > /dev/null & (while :; do echo w; sleep 0.05; done) &").timed_out
    assert "now\n" in box.run("sleep 0.2; echo now").text
    assert time.monotonic() - begin < 2


@pytest.mark.parametrize("command", ["kill -9 -1", "kill -9 1", "kill -TERM 1; kill -HUP 1"])
def test_the_agent_cannot_end_the_machine(box: Sandbox, command: str) -> None:
    box.run(command)
    box.run("exit")
    box.run("true")
    assert box.run("echo alive").text == "alive\n"
    assert box.run_script("echo alive", []).text == "alive\n"


def test_a_deleted_root_ends_no_program_of_ours(box: Sandbox) -> None:
    box.run("rm -rf --no-preserve-root / 2>/dev/null")
    box.run("ls")
    box.stop_agent()
    assert box.run_script("exit 0", []).exit_code != 0


def test_two_runs_print_the_same() -> None:
    def observe() -> list[str]:
        with Sandbox(SETTINGS) as box:
            commands = [
                "mkdir /data; echo x > /data/a",
                "ls -l /data",
                "nosuch",
                "set -x; ls /data",
            ]
            commands += ["pwd", "set +x", "sleep 9 & echo $!", "env | sort; date +%Z", "sleep 9"]
            return [box.run(command).text for command in commands]

    assert observe() == observe()


# Scripts share nothing with the agent's shell but files.


def test_scripts_get_arguments_and_report_their_end(box: Sandbox) -> None:
    output = box.run_script('echo "$#:$1:$2"; echo error >&2; exit 4', ["a b", "c\nd"])
    assert output == Output("2:a b:c\nd\nerror\n", 4, False)
    code = "import sys; print(sys.argv[1:]); sys.exit(2)"
    assert box.run_script(code, ["x"], "python") == Output("['x']\n", 2, False)


@pytest.mark.parametrize(
    "trick",
    [
        "exec >/dev/null",
        "alias stat=true; stat() { return 0; }; export -f stat",
        "export BASH_ENV=/tmp/env; echo 'exit 0' > /tmp/env; cp /tmp/env /root/.bashrc",
        "for n in stat timeout base64 head bash cat; do printf '#!/bin/bash\\nexit 0\\n' "
        "> /usr/local/bin/$n; chmod 755 /usr/local/bin/$n; done",
        "for p in /proc/[0-9]*/fd/*; do echo '0 ' > $p; done 2>/dev/null",
        "(while :; do cat /proc/1/fd/0; done) 2>/dev/null & (while :; do pkill -9 stat; done) &",
        "cd /; for n in os re sys stat; do echo 'raise SystemExit(0)' > $n.py; done",
        "PATH=/nowhere; cd /tmp",
    ],
)
def test_the_agent_cannot_make_a_failing_check_pass(box: Sandbox, trick: str) -> None:
    box.run(trick)
    box.stop_agent()
    assert box.run_script("stat /nowhere && exit 0; exit 5", []).exit_code == 5
    python = "import re, os\nraise SystemExit(6)"
    assert box.run_script(python, [], "python").exit_code == 6
    assert box.run_script("pwd; echo out", []).text == "/root\nout\n"
