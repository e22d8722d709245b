# Functions of the scripts in this folder, which begin with
#
#     . "$(dirname "$0")/lib.sh"
#     box "$@"
#
# After `box` a script runs in namespaces of its own, as in a machine of its own: process 1, a root that nobody else
# mounts in, an empty /run, a loopback interface, and at most the control groups below its own. Whatever it leaves
# running or mounted ends with it. Then there are
#
#   RUNTIME   the runtime under test, an absolute path
#   NAME      its base name (runc, runsc)
#   WORK      a folder on a real file system, removed at the end
#   IMAGES    what `setup` has made
#   SUITE     the suite of Debian whose manager it is; bookworm's are installed, others are laid over /usr
#
# A test is `check 'what must hold' <<'EOF' … EOF`, with a shell program that fails where it does not hold. Each gives a
# line of TAP on standard output, with the program's own output below where it failed. Then the function `recover` is
# called, where the script has one.

set -u
LANG=C.UTF-8
export LANG

say() { printf '# %s\n' "$*"; }

# Runs the script anew in a box, waits for its end, and clears up.
box() {
    RUNTIME=$(realpath -s "$1")
    NAME=$(basename "$RUNTIME")
    IMAGES=${XDG_CACHE_HOME:-$HOME/.cache}/runsc-rs/managers
    ROWS=0 FAILED=0 ONLY=${ONLY:-} SUITE=${SUITE:-bookworm}
    if [ -n "${BOX:-}" ]; then
        box_inside
        return
    fi
    [ -e "$IMAGES/box.tar" ] || { echo "no images in $IMAGES: run tests/run setup" >&2; exit 2; }
    WORK=$(mktemp -d "${TMPDIR:-/tmp}/managers.XXXXXX")
    local group=runsc-managers.$$ status=0 controller
    # Below groups of its own, where the machine has control groups of version 1.
    for controller in /sys/fs/cgroup/*/; do
        controller=${controller%/}
        [ ! -L "$controller" ] && [ -e "$controller/tasks" ] && mkdir "$controller/$group" 2>/dev/null || continue
        for file in cpuset.cpus cpuset.mems; do
            [ ! -e "$controller/$file" ] || cat "$controller/$file" >"$controller/$group/$file"
        done
    done
    (
        for controller in /sys/fs/cgroup/*/"$group"; do
            [ ! -e "$controller/tasks" ] || echo 0 >"$controller/tasks"
        done 2>/dev/null
        BOX=1 WORK=$WORK exec unshare --mount --pid --net --ipc --uts --cgroup --fork --kill-child --mount-proc \
            --propagation private "$0" "$@"
    ) || status=$?
    # Everything in the pid namespace has ended with its first process.
    for controller in /sys/fs/cgroup/*/"$group"; do
        [ ! -d "$controller" ] || find "$controller" -depth -type d -exec rmdir {} +
    done
    rm -rf "$WORK"
    exit "$status"
}

# Process 1 of the box: file systems and network as a machine has them after its start.
box_inside() {
    mount -t tmpfs -o mode=755 tmpfs /run
    mkdir -p /run/lock /run/netns
    mount -t sysfs sysfs /sys
    mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
    local id controllers path found=
    while IFS=: read -r id controllers path; do
        [ -n "$controllers" ] || continue
        local folder=/sys/fs/cgroup/${controllers#name=}
        mkdir -p "$folder"
        mount -t cgroup -o "$controllers" cgroup "$folder" && found=1
    done </proc/self/cgroup
    [ -n "$found" ] || mount -t cgroup2 cgroup2 /sys/fs/cgroup
    ip link set lo up
    echo 1 >/proc/sys/net/ipv4/ip_forward
    hostname box
    cd "$WORK"
}

# Lays what `suites` has unpacked in that folder over the programs and libraries of this machine.
over() {
    mount -t overlay -o "lowerdir=$(dirname "$IMAGES")/suites/$1/usr:/usr" overlay /usr
}

# Runs a test of that name: its program is standard input.
check() {
    local body
    body=$(cat)
    [ -z "$ONLY" ] || [[ "$1" == *"$ONLY"* ]] || return 0
    ROWS=$((ROWS + 1))
    local started=${EPOCHREALTIME/./}
    # Not in a condition, where `set -e` has no effect.
    (set -e -o pipefail; eval "$body") </dev/null >"$WORK/check.log" 2>&1
    if [ $? = 0 ]; then
        printf 'ok %d - %s\n' "$ROWS" "$1"
    else
        FAILED=$((FAILED + 1))
        printf 'not ok %d - %s\n' "$ROWS" "$1"
        tr '\r' '\n' <"$WORK/check.log" | tail -n 30 | sed 's/^/#   /'
        # What the script has to put right, so that the next test is not of this one's remains.
        ! declare -F recover >/dev/null || recover </dev/null >/dev/null 2>&1
    fi
    printf '# %d ms\n' $(((${EPOCHREALTIME/./} - started) / 1000))
}

# The plan; the script's exit status says whether all of its tests passed.
finish() {
    printf '1..%d\n' "$ROWS"
    [ "$FAILED" = 0 ]
}

# Says what differs and fails, where text is not what it should be.
is() {
    [ "$1" = "$2" ] || { printf 'expected: %s\ngot: %s\n' "$1" "$2"; return 1; }
}

# The same for text that contains another.
has() {
    case $2 in *"$1"*) ;; *) printf 'expected within: %s\ngot: %s\n' "$1" "$2"; return 1 ;; esac
}

# Prints the exit status of a command; what the command prints goes to the log.
status() {
    local status=0
    "$@" >&2 || status=$?
    echo "$status"
}

# Waits until a command succeeds; fails after that many seconds, with what it printed last.
PATIENCE=100
eventually() {
    local end=$((SECONDS + PATIENCE)) output
    until output=$("$@" 2>&1); do
        [ $SECONDS -lt $end ] || { printf 'never: %s\n%s\n' "$*" "$output"; return 1; }
        sleep 0.1
    done
}

# Runs a command line in a terminal of its own, and prints what appears there.
terminal() {
    timeout -k 5 100 script -qec "$1" /dev/null | tr -d '\r'
}

# The same for a program that says `terminal` and then waits for a line, which it gets when it has been seen: some
# managers do not look for output any more once a program has ended.
terminal_until_seen() {
    : >typescript
    { eventually grep -q '^terminal' typescript && echo; } |
        timeout -k 5 100 script -qefc "$1" typescript | tr -d '\r'
}
