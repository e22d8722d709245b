# What the scripts of Kubernetes' interface (CRI) have in common, for use after `box`: images in a registry with passwords,
# pods and containers, and the tests. Each script sets
#
#   CRICTL    crictl with the address of the manager, and a time limit
#   HANDLER   the manager's name for the runtime
#   SUITE     a name for what is tested, of which there may be several

CACHE=$(dirname "$IMAGES")
PATH=$PATH:$CACHE/cri-tools/v1.36.0
REGISTRY=127.0.0.1:5000
mkdir logs volume
echo from-the-host >volume/file

# An image for two machines, one of them another, and one whose program waits.
images() {
    skopeo copy -q "oci-archive:$IMAGES/box.oci.tar" oci:images:amd64
    umoci config --image images:amd64 --tag arm64 --architecture arm64
    umoci config --image images:amd64 --tag pause --config.cmd sleep --config.cmd infinity
    python3 - <<'EOF'
import hashlib, json
index = json.load(open("images/index.json"))
def of(name):
    entry = next(m for m in index["manifests"] if m["annotations"]["org.opencontainers.image.ref.name"] == name)
    return {"mediaType": entry["mediaType"], "digest": entry["digest"], "size": entry["size"],
            "platform": {"os": "linux", "architecture": name}}
media = "application/vnd.oci.image.index.v1+json"
both = json.dumps({"schemaVersion": 2, "mediaType": media, "manifests": [of("arm64"), of("amd64")]}).encode()
digest = hashlib.sha256(both).hexdigest()
open("images/blobs/sha256/" + digest, "wb").write(both)
index["manifests"].append({"mediaType": media, "digest": "sha256:" + digest, "size": len(both),
                           "annotations": {"org.opencontainers.image.ref.name": "both"}})
json.dump(index, open("images/index.json", "w"))
EOF
    htpasswd -Bbn tester s3cret >htpasswd
    cat >registry.yml <<EOF
version: 0.1
log: {level: warn}
storage: {filesystem: {rootdirectory: $WORK/registry}}
http: {addr: "$REGISTRY"}
auth: {htpasswd: {realm: tests, path: $WORK/htpasswd}}
EOF
    docker-registry serve registry.yml >registry.log 2>&1 &
    eventually curl -s "http://$REGISTRY/v2/" >/dev/null
    local name
    for name in both pause; do
        skopeo copy -q --all --dest-tls-verify=false --dest-creds tester:s3cret "oci:images:$name" \
            "docker://$REGISTRY/box:$name"
    done
}

c() { timeout -k 5 150 $CRICTL "$@"; }

# Writes the description of a pod.
pod() {
    cat >"$1.json" <<EOF
{"metadata": {"name": "$1", "namespace": "default", "attempt": 1, "uid": "$1-$SUITE-$HANDLER"},
 "hostname": "$1", "log_directory": "$WORK/logs",
 "linux": {"cgroup_parent": "/pods/$1", "security_context": {"namespace_options": {"network": 0, "pid": 1, "ipc": 0}}}}
EOF
}

# Writes the description of a container: NAME SCRIPT [FURTHER FIELDS]
describe() {
    cat >"$1.json" <<EOF
{"metadata": {"name": "$1"}, "image": {"image": "$REGISTRY/box:both"}, "command": ["sh", "-c", $(jq -Rs . <<<"$2")],
 "log_path": "$1.log", "envs": [{"key": "WORD", "value": "word"}],
 "mounts": [{"container_path": "/volume", "host_path": "$WORK/volume", "readonly": true}],
 "linux": {"resources": {"memory_limit_in_bytes": 134217728}, "security_context": {"namespace_options": {"network": 0, "pid": 1, "ipc": 0}}} ${3:-}}
EOF
}

# Creates and starts a container of a pod: POD NAME SCRIPT [FURTHER FIELDS]
container() {
    local id
    describe "${@:2}"
    id=$(c create "$(cat "$1.id")" "$2.json" "$1.json")
    c start "$id" >/dev/null
    echo "$id" >"$2.id"
}

id() { cat "$1.id"; }
state() { c inspect "$(id "$1")" | jq -r .status.state; }
is_in_state() { is "CONTAINER_$2" "$(state "$1")"; }
address() { c inspectp "$(id "$1")" | jq -r .status.network.ip; }
logs_have() { has "$2" "$(c logs "$(id "$1")" 2>&1)"; }

registry_tests() {
    check "$1: a registry with passwords, and an image for two machines" <<'EOF'
c pull "$REGISTRY/box:both" && false
c pull --creds tester:wrong "$REGISTRY/box:both" && false
c pull --creds tester:s3cret "$REGISTRY/box:both"
test -n "$(c images -q)"
EOF
}

# The life of a pod, from its making to its removal.
tests() {
    check "$1: a pod with an address" <<'EOF'
pod p
c runp --runtime "$HANDLER" p.json >p.id
has 10.77. "$(address p)"
EOF

    check "$1: two containers" <<'EOF'
container p a 'echo out; echo err >&2; mkdir /www; echo page >/www/index.html; httpd -p 80 -h /www; trap "exit 3" TERM; while :; do sleep 0.1; done'
container p b 'trap "exit 4" TERM; while read line; do echo "got $line"; done; while :; do sleep 0.1; done' ', "stdin": true'
is_in_state a RUNNING
is_in_state b RUNNING
eventually logs_have a out
eventually logs_have a err
EOF

    check "$1: exec" <<'EOF'
is 'p word from-the-host' "$(c exec -s "$(id a)" sh -c 'echo $(hostname) $WORD $(cat /volume/file)')"
c exec -s "$(id a)" sh -c 'exit 44' >out 2>&1 && false
grep -w 44 out
c exec -s "$(id a)" touch /volume/x && false
c exec -s --timeout 1 "$(id a)" sleep 30 && false
c exec -s "$(id a)" nosuch 2>err && false
grep -q 'executable file not found' err
EOF

    check "$1: exec over a stream" <<'EOF'
is hello "$(echo hello | c exec -i "$(id a)" cat)"
out=$(terminal_until_seen "$CRICTL exec -it $(id a) sh -c 'tty; test -t 0 && echo terminal; read line'")
has /dev/ "$out"
has terminal "$out"
EOF

    check "$1: the network" <<'EOF'
is page "$(curl -s -m 60 "http://$(address p)/")"
EOF

    check "$1: containers of a pod share an address" <<'EOF'
is page "$(c exec -s "$(id b)" wget -q -O - http://127.0.0.1/)"
EOF

    check "$1: port forwarding" <<'EOF'
$CRICTL port-forward "$(id p)" 18080:80 >/dev/null & forwarder=$!
trap 'kill $forwarder' EXIT
eventually curl -s -f -m 5 http://127.0.0.1:18080/ >/dev/null
is page "$(curl -s -m 60 http://127.0.0.1:18080/)"
EOF

    check "$1: attach" <<'EOF'
# What is attached stays so: until it is ended, or its input is.
(echo line; exec sleep 100) | $CRICTL attach -i "$(id b)" >/dev/null & attached=$!
trap 'kill -KILL $attached' EXIT
eventually logs_have b 'got line'
EOF

    check "$1: statistics" <<'EOF'
measured() { c stats -o json "$(id a)" | jq -e '.stats[0].cpu.usageCoreNanoSeconds.value | tonumber > 0'; }
eventually measured
[ "$(c stats -o json "$(id a)" | jq '.stats[0].memory.workingSetBytes.value | tonumber')" -gt 0 ]
c statsp -o json "$(id p)" | jq -e '.stats[0].linux | .memory // .network' >/dev/null
EOF

    check "$1: update" <<'EOF'
c update --memory 67108864 "$(id a)"
[ "$(c inspect "$(id a)" | jq '.status.resources.linux.memoryLimitInBytes | tonumber')" = 67108864 ]
is ok "$(c exec -s "$(id a)" echo ok)"
EOF

    check "$1: stop a container and start another in its place" <<'EOF'
c stop -t 60 "$(id a)" >/dev/null
is_in_state a EXITED
is 3 "$(c inspect "$(id a)" | jq .status.exitCode)"
c rm "$(id a)" >/dev/null
is_in_state b RUNNING
container p a 'exit 7'
eventually is_in_state a EXITED
is 7 "$(c inspect "$(id a)" | jq .status.exitCode)"
EOF

    check "$1: a program that is not there" <<'EOF'
describe n ''
jq '.command = ["nosuch"]' n.json >n2.json
n=$(c create "$(id p)" n2.json p.json 2>err) && c start "$n" 2>err && false
cat err
grep -q 'executable file not found' err
EOF

    check "$1: a container that runs out of memory" <<'EOF'
# Not at once: containerd's shim overlooks what happened in a group that is gone.
container p m 'head -c 200000000 /dev/zero | tail -c 150000000 >/dev/null; sleep 3; exit 9' ''
eventually is_in_state m EXITED
is_told() { is OOMKilled "$(c inspect "$(id m)" | jq -r .status.reason)"; }
eventually is_told
EOF

    check "$1: stop and remove the pod" <<'EOF'
c stopp "$(id p)" >/dev/null
c rmp "$(id p)" >/dev/null
is '' "$(c pods -q)"
is '' "$(c ps -a -q)"
EOF
}
