"""What process 1 of a sandbox does, in bash: see `sandbox.py`, which talks to it."""

from gcd.tasks.os_interaction.sandbox_command import LINKS

# The accounts of a fresh Debian or Ubuntu, which AgentBench's samples count and add users to. Its
# logs, which they count too, are made below.
USERS = (
    "daemon:1 bin:2 sys:3 games:5 man:6 lp:7 mail:8 news:9 uucp:10 proxy:13 www-data:33 backup:34 "
    "list:38 irc:39 nobody:65534"
)
GROUPS = (
    "root:0 daemon:1 bin:2 sys:3 adm:4 tty:5 disk:6 lp:7 mail:8 news:9 uucp:10 man:12 proxy:13 "
    "kmem:15 dialout:20 fax:21 voice:22 cdrom:24 floppy:25 tape:26 sudo:27 audio:29 dip:30 "
    "www-data:33 backup:34 operator:37 list:38 irc:39 src:40 shadow:42 utmp:43 video:44 sasl:45 "
    "plugdev:46 staff:50 games:60 users:100 nogroup:65534"
)

# Not on the command line, which the agent sees in `ps`: its keeper has the same.
READ_SUPERVISOR = "IFS= read -r -d '' text; eval \"$text\""
SUPERVISOR = """\
ulimit -S -H -u {processes} -v {memory_kib} -f {file_blocks} -n {open_files} -c 0 -t {cpu_seconds}
umask 022
/usr/bin/mkdir -p /root /home /tmp /var/log/apt /var/tmp /opt /srv /run /etc/skel
/usr/bin/chmod 1777 /tmp /var/tmp
for log in alternatives.log bootstrap.log btmp dpkg.log faillog lastlog wtmp; do
  : > /var/log/$log
done
printf 'root:x:0:0:root:/root:/bin/bash\\n' > /etc/passwd
for user in {users}; do
  number=${{user#*:}}
  printf '%s:x:%s:%s::/nonexistent:/usr/sbin/nologin\\n' "${{user%:*}}" $number $number
done >> /etc/passwd
for group in {groups}; do printf '%s:x:%s:\\n' "${{group%:*}}" "${{group#*:}}"; done > /etc/group
printf 'passwd: files\\ngroup: files\\nhosts: files\\n' > /etc/nsswitch.conf
printf '127.0.0.1 localhost sandbox\\n' > /etc/hosts
drop="/usr/bin/setpriv --bounding-set=-all --inh-caps=-all --ambient-caps=-all --"
keeper() {{
  while :; do
    cd {home} || cd /
    (exec -a bash /bin/bash --noprofile --norc -s <&{shell} >&{output} 2>&1 9>&{ended} \\
      {shell}<&- {output}>&- {ended}>&-)
    printf 'gone\\n' >&{ended}
  done
}}
untouched() {{ {untouched}; }}
start_keeper() {{
  untouched || return
  $drop /bin/bash --noprofile --norc -s <<<"$(declare -f keeper); keeper" >/dev/null 2>&1 &
  keeper=$!
}}
# Programs of the system come first: the agent can put a `stat` into /usr/local/bin.
script() {{
  local file=$1 code=1 text={replaced}
  shift
  cd {home} || cd /
  if untouched; then
    PATH=/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin $drop /usr/bin/timeout "$@" \\
      </dev/null >"$file" 2>&1 {shell}<&- {output}>&- {ended}>&-
    code=$?
    [ -z "$stopped" ] || kill -STOP -1
  fi
  if untouched; then
    text=$(/usr/bin/head -c {output_bytes} "$file" | /usr/bin/base64 -w0)
    /usr/bin/rm -f "$file"
  else
    code=1
  fi
  printf '%s %s\\n' $code $text
}} 2>/dev/null
# Questions about the number of processes: a script runs under two that the agent does not see.
for number in 1 2; do
  $drop /usr/bin/tail -f /dev/null </dev/null >/dev/null 2>&1 {shell}<&- {output}>&- {ended}>&- &
done
stand_ins=$(jobs -p)
start_keeper
printf 'ready\\n'
while IFS= read -r request; do eval "$request"; done
"""

# Agent and supervisor are the same user. Process 1 holds a capability that no other process has, so
# that these may not trace it or write to its memory. It is CAP_SETPCAP, which concerns only one's
# own capabilities, and there are no others to be had.
# /usr and /etc cannot be moved, but the links to /usr/lib64 and the like, which name the loader of
# every program, can be replaced, and a library be named that every program loads first.
REPLACED = "the programs of the system were replaced"
UNTOUCHED = " && ".join(
    ["[[ ! -s /etc/ld.so.preload ]]", *(f"[[ /{name} -ef /usr/{name} ]]" for name in LINKS)]
)

# Stops every process inside, so that checks find them, and find them doing nothing; where they
# leave no room for those of the checks, they are killed.
STOP_AGENT = (
    "stopped=yes; kill -9 $stand_ins; wait $stand_ins; kill -STOP -1; set -- /proc/[0-9]*; "
    "[ $# -lt ROOM ] || kill -9 -1; printf 'stopped\\n'"
)

# Kills every process inside that meets a condition on its /proc/…/stat, whose fields from the
# third on are $1, $2, …. Only bash's own means: it must work after a fork bomb.
KILL = (
    "for folder in /proc/[0-9]*; do "
    'if read -r line < "$folder/stat"; then '
    'set -- ${line##*) }; [ CONDITION ] && kill -9 "${folder#/proc/}"; fi; '
    "done 2>/dev/null; printf 'killed\\n'"
)
# What the running command has started: every process that is younger than the command. The shell
# and its keeper may be of the same age: it is counted in hundredths of a second.
KILL_YOUNGER = KILL.replace(
    "CONDITION", '"${20}" -ge START -a "$2" != "$keeper" -a "${folder#/proc/}" != "$keeper"'
)
# The agent's shell itself, where it loops in a builtin; the keeper, new if need be, starts another.
NEW_KEEPER = "kill -0 $keeper 2>/dev/null || { kill -9 -1; start_keeper; }; "
KILL_SHELL = NEW_KEEPER + KILL.replace("CONDITION", '"$2" = "$keeper"')
GONE = "gone"  # what the keeper says when the agent's shell has ended
