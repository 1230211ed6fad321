# One container with a real systemd, seen from outside. Sourced by `run`.
#
# It always ends with the test, whose trap calls container_remove. `container` runs a command in it;
# `from_outside` runs the host's command in its network, because it has a network of its own.

container_make() { # SUITE PACKAGE...
    work=$(mktemp -d "${XDG_CACHE_HOME:-$HOME/.cache}/rkllmd/appliance.XXXXXX")
    root=$work/root
    cp -a --reflink=auto "$(tests/appliance/tree "$1" amd64)" "$root"
    shift
    mkdir "$root/packages"
    cp "$@" "$root/packages"
}

container_boot() {
    # Its own session, so that a Ctrl-C reaches the test alone, which then cleans up.
    setsid systemd-nspawn --quiet --register=no --keep-unit --boot --private-network \
        --machine="appliance-$$" --directory="$root" </dev/null >>"$work/console" 2>&1 &
    nspawn=$!
    wait_for 60 'the container has an init' container_leader
    leader=$(container_leader)
    wait_for 120 'systemd has booted' booted
}

container_leader() {
    local pid
    pid=$(pgrep -P "$nspawn" | head -n 1)
    [[ -n $pid && $(readlink "/proc/$pid/exe") == */systemd ]] && printf '%s\n' "$pid"
}

booted() { [[ $(container systemctl is-system-running 2>/dev/null) =~ ^(running|degraded)$ ]]; }

container() { nsenter --target "$leader" --all -- "$@"; }

from_outside() { nsenter --target "$leader" --net -- "$@"; }

# As a power cut: nothing is told, nothing is flushed by its programs.
container_kill() {
    kill -KILL "$leader"
    wait "$nspawn" 2>/dev/null || true
    leader='' nspawn=''
}

container_remove() {
    [[ -z ${hub:-} ]] || kill "$hub" 2>/dev/null || true
    [[ -z ${leader:-} ]] || kill -KILL "$leader" 2>/dev/null || true
    [[ -z ${nspawn:-} ]] || { kill "$nspawn" 2>/dev/null || true; wait "$nspawn" 2>/dev/null || true; }
    [[ -z ${memory_group:-} ]] || rmdir "$memory_group" 2>/dev/null || true
    if [[ -n ${work:-} ]]; then
        rm -rf --one-file-system "$work"
    fi
}

# wait_for SECONDS WHAT COMMAND...: until the command succeeds.
wait_for() {
    local limit=$1 what=$2 until
    shift 2
    until=$((SECONDS + limit))
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < until)) || fail "not within $limit s: $what"
        sleep 0.1
    done
}

fail() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}
