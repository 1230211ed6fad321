# What the checks ask of the installed service. Sourced by `run`.

api=http://127.0.0.1:8080
model_name=SmolLM2-135M-Instruct.Q4_1
key=''

property() { container systemctl show rkllmd.service --property="$1" --value; }
daemon_pid() { property MainPID; }
active() { [[ $(property ActiveState) == active ]]; }
inactive() { [[ $(property ActiveState) == inactive ]]; }

# As the host counts: only there are control groups made.
host_daemon_pid() { pgrep --ns "$leader" --nslist pid --full '^/usr/bin/rkllmd serve'; }
worker_pid() { container pgrep --newest --full '^rkllmd-worker'; }
other_daemon_than() { local pid; pid=$(daemon_pid) && [[ $pid != 0 && $pid != "$1" ]] && active; }
other_worker_than() { local pid; pid=$(worker_pid) && [[ $pid != "$1" ]]; }

request() { # PATH [CURL ARGUMENT...]
    local path=$1
    shift
    from_outside curl --silent --show-error --max-time 300 ${key:+-H "Authorization: Bearer $key"} \
        -H 'Content-Type: application/json' "$@" "$api$path"
}
status_of() { request "$@" --output /dev/null --write-out '%{http_code}'; }
healthy() { [[ $(status_of /health) == 200 ]]; }

body() { # MAX_TOKENS STREAM
    printf '{"model": "%s", "max_tokens": %d, "stream": %s, "temperature": 0, "messages": [{"role": "user", "content": "Tell me a very long story."}]}' \
        "$model_name" "$1" "$2"
}
chat() { request /v1/chat/completions --fail-with-body --data "$(body 16 false)" >"$work/output"; }
answered() { chat && [[ -n $(jq -r '.choices[0].message.content' "$work/output") ]]; }

# A stream in the background that lasts about SECONDS at the speed of the last answer; it goes into
# $work/stream, and stream_is_whole waits for its end.
stream_begin() { # SECONDS
    local tokens
    tokens=$(jq -r --argjson seconds "$1" \
        '.timings.predicted_per_second * $seconds | ceil | [., 3000] | min | [., 12] | max' "$work/output")
    request /v1/chat/completions --fail-with-body --no-buffer --data "$(body "$tokens" true)" \
        >"$work/stream" 2>"$work/stream.errors" &
    stream=$!
    wait_for 120 'the stream has tokens' stream_flows
}
stream_runs() {
    kill -0 "$stream" 2>/dev/null || fail 'the stream ended before it could be disturbed'
}
stream_flows() { (($(grep -c '"content"' "$work/stream") > 3)); }
stream_is_whole() {
    wait "$stream" || fail "the stream broke: $(cat "$work/stream.errors"; tail -n 3 "$work/stream")"
    grep -q '^data: \[DONE\]' "$work/stream" || fail "the stream has no end: $(tail -n 3 "$work/stream")"
    ! grep -q '"error"' "$work/stream" || fail "the stream has an error: $(grep '"error"' "$work/stream")"
    grep -qE '"finish_reason": ?"(length|stop)"' "$work/stream" || fail 'the stream has no finish reason'
}

# says PATTERN COMMAND...: a match in the command's output. Not a pipe to `grep -q`, which ends at
# the first match and with it the command, as an error.
says() { grep -qE -- "$1" <<<"$("${@:2}")"; }

write_in_container() { container sh -c 'mkdir -p "$(dirname "$1")" && cat >"$1"' - "$1"; }
