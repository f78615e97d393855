#!/bin/bash
# As much of `docker` as DockerMachine uses. A container is a process namespace of this machine,
# without a file system of its own: what the tests run inside is harmless.
printf '%s\n' "$*" >> "$0.log"
verb=$1
shift
case $verb in
  image)
    if [ "${@: -1}" != local-os/default ]; then
      echo "Error response from daemon: No such image: ${@: -1}" >&2
      exit 1
    fi ;;
  run)
    while [ "$1" != local-os/default ]; do shift; done
    shift
    setsid unshare --user --map-root-user --pid --mount --mount-proc --fork --kill-child "$@" \
      </dev/null >/dev/null 2>&1 &
    outer=$!
    for ((tries = 0; tries < 500; tries++)); do
      inner=$(cat "/proc/$outer/task/$outer/children")
      inner=${inner% }
      [ -n "$inner" ] && [ "$(cat "/proc/$inner/comm")" = "$1" ] && break
      sleep 0.01
    done
    echo "$inner" ;;
  exec)
    interactive=
    [ "$1" = -i ] && { interactive=yes; shift; }
    target=$1
    shift
    if [ ! -d "/proc/$target/ns" ]; then
      echo "Error response from daemon: container $target is not running" >&2
      exit 1
    fi
    inside=(nsenter --target "$target" --user --preserve-credentials --pid --mount -- "$@")
    [ "$interactive" ] && exec "${inside[@]}"
    { "${inside[@]}"; code=$?; } 2>/dev/null
    exit $code ;; # 137 where a signal killed it, as docker has it
  rm)
    kill -9 "$2" || exit 1
    while [ -d "/proc/$2/ns" ]; do sleep 0.01; done ;;
esac
