# The checks, in the order they run in; each begins with what the one before left. Sourced by `run`.

apt_installs_both_packages() { # CHECK
    local began=$SECONDS
    installed_from=$(now_ms)
    container sh -c 'apt-get install -y --no-install-recommends \
        "/packages/$1" "/packages/$2" 2>&1' - "$(basename "$rkllmd_deb")" "$(basename "$cpu_deb")" \
        >"$work/output" || fail "apt-get: $(tail -n 20 "$work/output")"
    grep -q 'rkllmd keys first' "$work/output" || fail 'the installation does not tell of the first key'
    install_seconds=$((SECONDS - began))
}

the_service_is_active_and_ready() { # CHECK
    # Type=notify: it is active when the daemon has said READY=1.
    [[ $(property Type) == notify ]] || fail "Type=$(property Type)"
    wait_for 60 'the unit is active' active
    [[ $(container systemctl is-enabled rkllmd.service) == enabled ]] || fail 'the service is not enabled'
    [[ $(container systemctl is-enabled rkllmd.socket) == disabled ]] || fail 'the socket ships enabled'
    [[ $(container systemctl is-enabled rkllmd-tune.service) == disabled ]] || fail 'tuning ships enabled'
    note=$(property StatusText)
    [[ -n $note ]] || fail 'the unit tells no status'
    wait_for 30 'it answers' healthy
}

only_a_key_opens_it() { # CHECK
    local file=/var/lib/rkllmd/first-key
    [[ $(container stat -c '%U %a' "$file") == 'root 600' ]] || fail "$(container stat -c '%U %a' "$file")"
    [[ $(status_of /v1/models) == 401 ]] || fail "without a key: $(status_of /v1/models)"
    key=$(container rkllmd keys first 2>/dev/null | tail -n 1)
    [[ $(status_of /v1/models) == 200 ]] || fail "with the first key: $(status_of /v1/models)"
}

a_pull_over_loopback_brings_a_first_token() { # CHECK
    local address=127.0.0.1:8900 began pulled first='' line='' drop_in=/etc/rkllmd/rkllmd.toml.d/40-hub.toml
    [[ -n ${installed_from:-} ]] || fail 'this check comes after the installation'
    # It becomes the hub, as a function would not.
    nsenter --target "$leader" --net -- python3 tests/appliance/hub.py "$address" owner/name "$model" \
        >"$work/hub" 2>&1 &
    hub=$!
    wait_for 60 'the hub answers' from_outside curl --silent --fail "http://$address/api/models/owner/name/revision/main"
    write_in_container "$drop_in" <<<$'[hub]\nendpoint = "http://127.0.0.1:8900"\nkeep-free-bytes = 0\n'
    container systemctl reload rkllmd || fail 'the reload failed'
    began=$(now_ms)
    request /api/pull --fail-with-body --data '{"model": "owner/name", "stream": false}' >"$work/output" \
        || fail "the pull: $(cat "$work/output")"
    pulled=$(now_ms)
    while IFS= read -r line; do
        if [[ $line =~ \"content\":\ ?\"[^\"] ]]; then
            first=$(now_ms)
            break
        fi
    done < <(model_name=owner/name; request /v1/chat/completions --no-buffer --data "$(body 16 true)" 2>/dev/null)
    [[ -n $first ]] || fail "no token of a model that was pulled: $line"
    note="$(seconds "$installed_from" "$first") s from apt-get install to the first token: of it the pull"
    note+=" $(seconds "$began" "$pulled") s, load and first token $(seconds "$pulled" "$first") s"
    # Its stream may go on for a moment, and what is in use stays.
    wait_for 60 'what was pulled can be removed' pulled_is_removed
    kill "$hub"
    wait "$hub" 2>/dev/null || true
    hub=''
    container rm "$drop_in"
    container systemctl reload rkllmd || fail 'the reload failed'
}
pulled_is_removed() {
    [[ $(status_of /api/delete --request DELETE --data '{"model": "owner/name"}') == 200 ]]
}
now_ms() { date +%s%3N; }
seconds() { printf '%d.%01d' $((($2 - $1) / 1000)) $((($2 - $1) % 1000 / 100)); } # FROM_MS TO_MS

a_model_dropped_into_the_folder_chats() { # CHECK
    container sh -c 'cat >/var/lib/rkllmd/models/.new && mv /var/lib/rkllmd/models/.new "$1"' - \
        "/var/lib/rkllmd/models/$model_name.gguf" <"$model"
    container systemctl reload rkllmd || fail 'the reload failed'
    wait_for 120 'a chat is answered' answered
    note=$(jq -c '.choices[0].message.content' "$work/output")
}

the_cpu_runtime_fits_the_cpu() { # CHECK
    local expected=x86-64
    ! grep -qw avx2 /proc/cpuinfo || expected=avx2
    container grep -q "/usr/lib/rkllmd/$expected/librkllmrt.so" "/proc/$(worker_pid)/maps" \
        || fail "the worker has another library than $expected's"
    note=$expected
}

it_runs_unprivileged() { # CHECK
    local pid user status place
    pid=$(daemon_pid)
    for pid in "$pid" "$(worker_pid)"; do
        user=$(container stat -c %U "/proc/$pid")
        [[ $user == rkllmd ]] || fail "process $pid runs as $user"
        status=$(container cat "/proc/$pid/status")
        for set in CapInh CapPrm CapEff CapBnd CapAmb; do
            grep -qE "^$set:\s*0+$" <<<"$status" || fail "process $pid has capabilities: $set"
        done
        grep -qE '^NoNewPrivs:\s*1$' <<<"$status" || fail "process $pid may gain privileges"
        grep -qE '^Seccomp:\s*2$' <<<"$status" || fail "process $pid has no system-call filter"
    done
    # In the daemon's own view of the files, as its user.
    as_daemon() {
        container nsenter --target "$(daemon_pid)" --mount -- \
            setpriv --reuid=rkllmd --regid=rkllmd --clear-groups "$@"
    }
    as_daemon touch /var/lib/rkllmd/written || fail 'its own folder cannot be written'
    as_daemon rm /var/lib/rkllmd/written
    for place in /etc/rkllmd /etc /usr/lib/rkllmd /usr/bin /var/lib /var/log /root /home /boot; do
        ! as_daemon touch "$place/written" 2>/dev/null || fail "it can write to $place"
    done
    # What a mistaken chmod would open is still read-only there, even for root.
    ! container nsenter --target "$(daemon_pid)" --mount -- touch /etc/written 2>/dev/null \
        || fail '/etc is writable in the unit'
}

workers_reach_their_own_files_only() { # CHECK
    local name value landlock
    local -a sandbox=()
    landlock=$(request /v1/status | jq '.confinement.landlock')
    if [[ $landlock == null ]]; then
        note="NOT TRIED: the kernel of this machine has no Landlock: $(request /v1/status | jq -r '.confinement.reason')"
        says 'no Landlock' container journalctl -u rkllmd --no-pager || fail 'the log does not say so'
        return
    fi
    [[ $(request /v1/status | jq '.confinement.workers') == true ]] || fail 'workers are not confined'
    # From inside, under the unit's own filter.
    for name in SystemCallFilter SystemCallErrorNumber SystemCallArchitectures NoNewPrivileges \
        MemoryDenyWriteExecute ProtectSystem ProtectProc RestrictNamespaces; do
        value=$(container systemctl show rkllmd --property="$name" --value)
        sandbox+=("--property=$name=$value")
    done
    container systemd-run --wait --pipe --quiet --uid=rkllmd "${sandbox[@]}" \
        /usr/bin/rkllmd worker-self-test >"$work/output" || fail "a worker reaches too much: $(cat "$work/output")"
    answered || fail 'no answer'
    note="Landlock $landlock; in a worker, $(grep -c 'in a worker: Permission denied' "$work/output") tries were refused"
}

models_are_read_by_a_process_that_can_do_nothing() { # CHECK
    local reader name value
    local -a sandbox=()
    answered || fail 'no answer'
    reader=$(container pgrep --newest --full '^rkllmd-reader') || fail 'no reader runs'
    says '^Seccomp:[[:space:]]*2$' container cat "/proc/$reader/status" || fail 'it has no filter'
    says '^NoNewPrivs:[[:space:]]*1$' container cat "/proc/$reader/status" || fail 'it may gain privileges'
    says '^Max open files *0 *0 ' container cat "/proc/$reader/limits" || fail 'it may open files'
    says '^Max file size *0 *0 ' container cat "/proc/$reader/limits" || fail 'it may write files'
    # From inside, under the unit's own filter: everything is tried and refused.
    for name in SystemCallFilter SystemCallErrorNumber SystemCallArchitectures NoNewPrivileges \
        MemoryDenyWriteExecute ProtectSystem ProtectProc RestrictNamespaces; do
        value=$(container systemctl show rkllmd --property="$name" --value)
        sandbox+=("--property=$name=$value")
    done
    container systemd-run --wait --pipe --quiet --uid=rkllmd "${sandbox[@]}" \
        /usr/bin/rkllmd reader-self-test >"$work/output" || fail 'something is allowed in a reader'
    says 'Seccomp: 2' cat "$work/output" || fail 'there is no filter'
    note="in a reader, $(grep -c 'Operation not permitted' "$work/output") tries were refused"
}

the_doctor_tells_root_and_the_service_the_same() { # CHECK
    local code=0 differing
    container rkllmd doctor --json >"$work/doctor-root" || code=$?
    [[ $code -le 1 ]] || fail "for root: $(jq -c '.checks[] | select(.status == "fail")' "$work/doctor-root")"
    code=0
    container nsenter --target "$(daemon_pid)" --mount -- \
        setpriv --reuid=rkllmd --regid=rkllmd --clear-groups \
        rkllmd doctor --json >"$work/doctor-service" || code=$?
    [[ $code -le 1 ]] || fail "for the service: $(jq -c '.checks[] | select(.status == "fail")' "$work/doctor-service")"
    differing=$(diff <(jq -c '.checks[] | [.id, .status]' "$work/doctor-root") \
        <(jq -c '.checks[] | [.id, .status]' "$work/doctor-service") || true)
    [[ -z $differing ]] || fail "it tells the service's user something else: $differing"
    note="$(jq -r '[.checks[].status] | group_by(.) | map("\(length) \(.[0])") | join(", ")' "$work/doctor-root")"
}

what_the_doctor_says_to_type_mends_what_it_finds() { # CHECK
    local copy=/run/board mended=0 model_file=/var/lib/rkllmd/models/$model_name.gguf keys=/var/lib/rkllmd/keys.toml
    local device=$copy/dev/dri/by-path/platform-fdab0000.npu-card
    # is_found STATUS ID [ARGUMENT...]: for root.
    is_found() {
        container rkllmd doctor --json "${@:3}" >"$work/doctor" || true
        [[ $(jq -r --arg id "$2" '.checks[] | select(.id == $id).status' "$work/doctor") == "$1" ]] \
            || fail "$2 is not $1: $(jq -c --arg id "$2" '.checks[] | select(.id == $id)' "$work/doctor")"
    }
    # is_mended ID [ARGUMENT...]: it is wrong, for the service's user as well, until what is told is typed.
    is_mended() {
        local remedy
        is_found fail "$@"
        container nsenter --target "$(daemon_pid)" --mount -- \
            setpriv --reuid=rkllmd --regid=rkllmd --init-groups \
            rkllmd doctor --json "${@:2}" >"$work/doctor-service" || true
        [[ $(jq -r --arg id "$1" '.checks[] | select(.id == $id).status' "$work/doctor-service") == fail ]] \
            || fail "$1: the service's user is told something else: $(jq -c --arg id "$1" '.checks[] | select(.id == $id)' "$work/doctor-service")"
        remedy=$(jq -r --arg id "$1" '.checks[] | select(.id == $id).remedy' "$work/doctor")
        container sh -c "$remedy" || fail "$1: $remedy"
        wait_for 60 'the unit is active' active
        is_found ok "$@"
        mended=$((mended + 1))
    }
    # A device of a board's, in the service's own view as well, for the users of this system.
    container mkdir -p "$copy/proc/device-tree" "$(dirname "$device")"
    container sh -c 'printf "rockchip,rk3588\0" >"$1/proc/device-tree/compatible"; ln -s /etc "$1/etc"' - "$copy"
    container sh -c 'touch "$1" && chgrp render "$1" && chmod 660 "$1"' - "$device"
    is_found ok node.access --sysroot "$copy"
    container gpasswd --delete rkllmd render >/dev/null || fail 'the group is not left'
    is_mended node.access --sysroot "$copy"
    container rm -r "$copy"
    # Files that were copied as root.
    container sh -c 'chown root: "$1" && chmod 600 "$1"' - "$model_file"
    is_mended models.access
    container chown root: "$keys"
    container chmod 600 "$keys"
    is_mended service.keys
    # With the keys, which it reads again by itself.
    wait_for 60 'a chat is answered' answered
    note="$mended checks were mended"
}

tuning_works_in_its_unit_and_is_undone() { # CHECK
    # On a copy, where the unit may write: the governors of this machine are not the test's.
    local copy=/run/rkllmd-tune/board governor
    governor=$copy/sys/devices/system/cpu/cpufreq/policy0/scaling_governor
    container mkdir -p "$(dirname "$governor")" /etc/systemd/system/rkllmd-tune.service.d
    write_in_container "$governor" <<<schedutil
    write_in_container /etc/systemd/system/rkllmd-tune.service.d/copy.conf <<END
[Service]
ExecStart=
ExecStart=/usr/bin/rkllmd tune --sysroot $copy
ExecStopPost=
ExecStopPost=/usr/bin/rkllmd tune --restore --sysroot $copy
END
    container systemctl daemon-reload
    container systemctl start rkllmd-tune.service || fail 'the unit did not start'
    [[ $(container cat "$governor") == performance ]] || fail "tuned: $(container cat "$governor")"
    container systemctl stop rkllmd-tune.service || fail 'the unit did not stop'
    [[ $(container cat "$governor") == schedutil ]] || fail "restored: $(container cat "$governor")"
    container rm -r /etc/systemd/system/rkllmd-tune.service.d "$copy"
    container systemctl daemon-reload
}

a_request_is_one_journal_entry_with_fields() { # CHECK
    local entries
    answered || fail 'no answer'
    journal_has_request() {
        container journalctl -u rkllmd -o json --no-pager --all >"$work/journal"
        jq -e -s 'map(select(.RKLLMD_MODEL != null and .RKLLMD_REQUEST != null)) | length > 0' "$work/journal"
    }
    wait_for 30 'an entry with model and request' journal_has_request
    jq -e -s 'map(select(.RKLLMD_WORKER_PID != null and .RKLLMD_MODEL != null)) | length > 0' \
        "$work/journal" >/dev/null || fail 'no entry tells the worker'
    entries=$(jq -r 'select(.RKLLMD_REQUEST != null) | [.RKLLMD_REQUEST, .MESSAGE] | @tsv' "$work/journal" | sort | uniq -d)
    [[ -z $entries ]] || fail "entries are there twice: $entries"
}

a_killed_worker_does_not_break_a_stream() { # CHECK
    local daemon worker
    answered || fail 'no answer'
    daemon=$(daemon_pid) worker=$(worker_pid)
    stream_begin 10
    stream_runs
    container kill -KILL "$worker"
    stream_is_whole
    other_worker_than "$worker" || fail 'there is no other worker'
    [[ $(daemon_pid) == "$daemon" ]] || fail 'the daemon went with its worker'
}

a_killed_daemon_comes_back() { # CHECK
    local daemon worker
    daemon=$(daemon_pid) worker=$(worker_pid)
    container kill -KILL "$daemon"
    wait_for 60 'another daemon runs' other_daemon_than "$daemon"
    wait_for 30 'its worker is gone' not container kill -0 "$worker"
    wait_for 120 'a chat is answered' answered
}
not() { ! "$@"; }

the_watchdog_ends_a_stopped_daemon() { # CHECK
    local daemon began
    daemon=$(daemon_pid) began=$(date +%s%N)
    container kill -STOP "$daemon"
    wait_for 120 'the watchdog has restarted it' other_daemon_than "$daemon"
    note="SIGSTOP to READY of the next daemon took $((($(date +%s%N) - began) / 1000000)) ms, WatchdogSec is $(container systemctl show rkllmd --property=WatchdogUSec --value)"
    says 'Watchdog timeout' container journalctl -u rkllmd --no-pager || fail 'it was not the watchdog'
    wait_for 120 'a chat is answered' answered
}

an_oom_kill_of_a_worker_leaves_the_unit_alone() { # CHECK
    local daemon try unit_score hierarchy=/sys/fs/cgroup/memory
    killed_for_memory() {
        says '^rkllmd_worker_exits_total.*oom' request /metrics || other_daemon_than "$1"
    }
    if [[ ! -e $hierarchy/memory.limit_in_bytes ]]; then
        hierarchy=/sys/fs/cgroup
    fi
    score_of() { container cat "/proc/$1/oom_score_adj"; }
    # A container's service manager may not lower one, so of the daemon's it can only be asked.
    unit_score=$(container systemctl show rkllmd --property=OOMScoreAdjust --value)
    [[ $unit_score == -500 ]] || fail "the unit's OOM score is $unit_score"
    [[ $(score_of "$(worker_pid)") == 500 ]] || fail "the worker's OOM score is $(score_of "$(worker_pid)")"
    # The container's own units have no memory controller where it was not delegated to them, so a
    # group of the host's is put around the daemon, from which new workers inherit it.
    memory_group=$hierarchy/rkllmd-appliance-$$
    mkdir "$memory_group"
    limit=$memory_group/memory.max unlimited=max
    if [[ -e $memory_group/memory.limit_in_bytes ]]; then
        limit=$memory_group/memory.limit_in_bytes unlimited=-1
    fi
    # Before it has the memory of the worker back the kernel may choose the daemon too, whose service
    # manager starts it again outside the group: then once more.
    for try in 1 2; do
        daemon=$(daemon_pid)
        host_daemon_pid >"$memory_group/cgroup.procs"
        echo $((48 << 20)) >"$limit"
        container kill -KILL "$(worker_pid)"
        request /v1/chat/completions --max-time 60 --data "$(body 16 false)" >"$work/output" &
        wait_for 90 'a worker was killed for memory' killed_for_memory "$daemon"
        echo "$unlimited" >"$limit"
        wait "$!" || true
        [[ $(daemon_pid) != "$daemon" && $try == 1 ]] || break
        wait_for 120 'a chat is answered' answered
        note='the second try, '
    done
    wait_for 180 'a chat is answered' answered
    active && [[ $(daemon_pid) == "$daemon" ]] || fail 'the unit did not survive'
    note+='by a memory group of the host around the daemon'
    for task in $(cat "$memory_group/cgroup.procs"); do
        echo "$task" >"$hierarchy/cgroup.procs"
    done
    rmdir "$memory_group"
    memory_group=''
}

a_good_reload_drops_no_stream() { # CHECK
    local daemon
    daemon=$(daemon_pid)
    answered || fail 'no answer'
    stream_begin 10
    write_in_container /etc/rkllmd/rkllmd.toml.d/50-test.toml <<<$'[queue]\ncapacity = 7\n'
    stream_runs
    container systemctl reload rkllmd || fail 'a good configuration was refused'
    stream_is_whole
    [[ $(daemon_pid) == "$daemon" ]] || fail 'the daemon was restarted'
    answered || fail 'no answer'
    says '^rkllmd_queue_capacity[{].*[}] 7$' request /metrics || fail 'the new capacity does not apply'
}

a_bad_reload_is_refused_and_changes_nothing() { # CHECK
    local daemon
    daemon=$(daemon_pid)
    write_in_container /etc/rkllmd/rkllmd.toml.d/60-bad.toml <<<$'[queue]\ncapacty = 9\n'
    ! container systemctl reload rkllmd 2>/dev/null || fail 'a bad configuration was taken'
    active && [[ $(daemon_pid) == "$daemon" ]] || fail 'the daemon did not stay'
    says '^rkllmd_queue_capacity[{].*[}] 7$' request /metrics || fail 'the old configuration is gone'
    container rm /etc/rkllmd/rkllmd.toml.d/60-bad.toml
}

socket_activation_loses_no_connection_in_a_restart() { # CHECK
    local daemon count
    container systemctl stop rkllmd.service
    [[ $(container systemctl show rkllmd.socket --property=SocketMode --value) == 0660 ]] \
        || fail 'a Unix socket of it would be open to every user'
    container systemctl enable --quiet --now rkllmd.socket
    container systemctl start rkllmd.service
    wait_for 60 'it answers' healthy
    daemon=$(daemon_pid)
    : >"$work/connects"
    from_outside bash -c '
        until [[ -e $1/stop ]]; do
            curl --silent --max-time 60 --output /dev/null --write-out "%{http_code} %{errormsg}\n" "$2/health"
        done' - "$work" "$api" >"$work/connects" &
    local asking=$!
    wait_for 30 'requests flow' test -s "$work/connects"
    container systemctl restart rkllmd.service
    other_daemon_than "$daemon" || fail 'it was not restarted'
    count=$(wc -l <"$work/connects")
    enough() { (($(wc -l <"$work/connects") > count + 5)); }
    wait_for 30 'more requests are answered' enough
    touch "$work/stop"
    wait "$asking"
    ! grep -vq '^200 ' "$work/connects" || fail "lost: $(grep -v '^200 ' "$work/connects" | sort | uniq -c)"
    note="$(wc -l <"$work/connects") requests, none lost"
    container systemctl disable --quiet --now rkllmd.socket
    container systemctl restart rkllmd.service
    wait_for 60 'it answers' healthy
}

an_upgrade_lets_a_stream_finish() { # CHECK
    local daemon
    write_in_container /etc/rkllmd/rkllmd.toml.d/70-drain.toml <<<$'[deadlines]\ndrain = "5m"\n'
    container systemctl restart rkllmd.service
    daemon=$(daemon_pid)
    wait_for 120 'a chat is answered' answered
    # Longer than apt takes until it restarts the daemon; deadlines.drain allows for it.
    stream_begin $((2 * install_seconds + 20))
    container sh -c 'apt-get install -y "/packages/$1" 2>&1' - "$(basename "$newer_deb")" \
        >"$work/apt" 2>&1 &
    local apt=$!
    draining() { says 'shutting down' container journalctl _PID="$daemon" --no-pager; }
    wait_for 120 'the old daemon drains' draining
    stream_runs
    stream_is_whole
    wait "$apt" || fail "apt-get: $(tail -n 20 "$work/apt")"
    other_daemon_than "$daemon" || fail 'the old daemon still runs'
    [[ $(container dpkg-query -W -f '${Version}' rkllmd) == "$(dpkg-deb -f "$newer_deb" Version)" ]] \
        || fail 'the version is not the newer one'
    wait_for 120 'a chat is answered' answered
    container test -e /etc/rkllmd/rkllmd.toml.d/70-drain.toml || fail 'a drop-in is gone'
}

five_power_cuts_while_keys_are_written_leave_clean_starts() { # CHECK
    local round kept known
    for round in 1 2 3 4 5; do
        known=$work/known-$round
        container bash -c '
            for n in $(seq 1 10000); do
                rkllmd keys add "cut-$1-$n" >/dev/null 2>&1 && echo "cut-$1-$n"
            done' - "$round" >"$known" 2>/dev/null &
        wait_for 60 'keys were written' test -s "$known"
        sleep "0.$((RANDOM % 9))"
        container_kill
        container_boot
        wait_for 120 'the unit is active' active
        wait_for 30 'it answers' healthy
        container rkllmd keys list >"$work/keys" || fail "the keys cannot be read in round $round"
        while read -r kept; do
            grep -qw -- "$kept" "$work/keys" || fail "$kept was acknowledged and is gone"
        done <"$known"
        [[ $(status_of /v1/models) == 200 ]] || fail 'the first key is not valid any more'
    done
    note="$(grep -c 'cut-' "$work/keys") keys, all that were acknowledged"
    wait_for 120 'a chat is answered' answered
}

removing_stops_it_and_keeps_what_is_the_users() { # CHECK
    container apt-get remove -y rkllmd >"$work/output" 2>&1 || fail "apt-get: $(tail "$work/output")"
    ! container pgrep -f '^(/usr/bin/rkllmd|rkllmd-worker|rkllmd-reader)' || fail 'a process is left'
    container test -e "/var/lib/rkllmd/models/$model_name.gguf" || fail 'the model is gone'
    container test -e /etc/rkllmd/rkllmd.toml || fail 'the configuration is gone'
}

purging_leaves_nothing() { # CHECK
    local left
    container apt-get purge -y rkllmd rkllmd-cpu >"$work/output" 2>&1 || fail "apt-get: $(tail "$work/output")"
    container rm -r /packages
    # Debian's own records of what happened stay: dpkg's and apt's logs, and the journal.
    left=$(container find / -xdev \( -path /proc -o -path /sys -o -path /var/log \) -prune \
        -o \( -name '*rkllmd*' -o -nouser -o -nogroup \) -print)
    left+=$(container find /run /tmp /var/tmp \( -name '*rkllmd*' -o -name '*rknpu*' \) \
        ! -path '/run/systemd/*' -print)
    [[ -z $left ]] || fail "left: $left"
    ! container getent passwd rkllmd || fail 'the user is left'
    ! container getent group rkllmd || fail 'the group is left'
    ! container systemctl cat rkllmd.service 2>/dev/null || fail 'systemd still knows the unit'
}
