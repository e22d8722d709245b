# What the scripts of the services share.
set -u
cd /tmp

# Prints a line of what failed, with the end of the files named after it.
fail() {
    echo "failed: $1"
    shift
    [ $# = 0 ] || tail -n 20 -- "$@"
    exit 1
}

# Waits until a command succeeds: `wait_for 'what' command args`.
wait_for() {
    local what=$1 tries=0
    shift
    until "$@" >/dev/null 2>&1; do
        [ $((tries += 1)) -lt 1200 ] || fail "$what does not come up"
        sleep 0.05
    done
}

# Waits until a child of the shell has ended, and prints how: `ended 'what' PID`.
ended() {
    local status=0
    wait "$2" || status=$?
    echo "$1 ended with $status"
}

# Kills a child of the shell without warning. What the shell says of it has its process id.
killed() {
    { kill -KILL "$2"; wait "$2"; } 2>/dev/null
    echo "$1 ended with $?"
}

# Prints whether the two words are the same.
same() {
    if [ "$2" = "$3" ]; then echo "$1: ok"; else echo "$1: wanted $2, got $3"; fi
}
