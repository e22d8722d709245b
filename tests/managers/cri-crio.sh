# Starting CRI-O for the scripts of Kubernetes' interface, for use after `cri.sh`, with an image `box:pause` that holds a pod
# in the registry. Its handler is `tested`.

CRIO=$CACHE/crio/v1.36.3
echo '{"default": [{"type": "insecureAcceptAnything"}]}' >policy.json
printf '[[registry]]\nlocation = "%s"\ninsecure = true\n' "$REGISTRY" >registries.conf
printf '{"auths": {"%s": {"auth": "%s"}}}' "$REGISTRY" "$(printf tester:s3cret | base64)" >pause-auth.json
# runc cannot give the container that holds a pod the preference that CRI-O asks for, where the machine does not permit
# it: then that is left out.
WRAPPER=$RUNTIME
if [ "$NAME" = runc ] && ! (echo -999 >/proc/self/oom_score_adj) 2>/dev/null; then
    WRAPPER=$WORK/runc
    cat >"$WRAPPER" <<EOF
#!/bin/bash
for ((n = 1; n < \$#; n++)); do
    next=\$((n + 1))
    [ "\${!n}" != --bundle ] || config=\${!next}/config.json
done
if [ -n "\${config:-}" ]; then
    jq 'del(.process.oomScoreAdj)' "\$config" >"\$config.new" && mv "\$config.new" "\$config"
fi
exec "$RUNTIME" "\$@"
EOF
    chmod 755 "$WRAPPER"
fi

# Starts CRI-O with a container that holds each pod (`hold`), or without (`drop`), and a network of that number.
start() {
    local drop=false
    [ "$1" = drop ] && drop=true
    mkdir -p "$1"/{cni,exits,conf.d}
    cat >"$1/cni/net.conflist" <<EOF
{"cniVersion": "0.4.0", "name": "$1", "plugins": [
  {"type": "bridge", "bridge": "$1", "isGateway": true, "ipMasq": true,
   "ipam": {"type": "host-local", "dataDir": "$WORK/$1/ipam", "ranges": [[{"subnet": "10.77.$2.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
EOF
    # Sockets have short names: that of an attachment has 72 characters below this directory.
    cat >"$1/crio.conf" <<EOF
[crio]
root = "$WORK/$1/root"
runroot = "/run/$1/storage"
storage_driver = "overlay"
log_dir = "$WORK/logs"
version_file = "/run/$1/version"
version_file_persist = "$WORK/$1/version"
clean_shutdown_file = "$WORK/$1/clean.shutdown"
[crio.api]
listen = "/run/$1/sock"
[crio.runtime]
default_runtime = "tested"
conmon_cgroup = "pod"
cgroup_manager = "cgroupfs"
drop_infra_ctr = $drop
apparmor_profile = "unconfined"
default_ulimits = ["nofile=4096:4096"]
pinns_path = "$CRIO/pinns"
namespaces_dir = "/run/$1/ns"
container_exits_dir = "$WORK/$1/exits"
container_attach_socket_dir = "/run/$1/attach"
[crio.runtime.runtimes.tested]
runtime_path = "$WRAPPER"
runtime_type = "oci"
runtime_root = "/run/$1/runtime"
monitor_path = "/usr/bin/conmon"
monitor_cgroup = "pod"
[crio.image]
pause_image = "$REGISTRY/box:pause"
pause_command = ""
pause_image_auth_file = "$WORK/pause-auth.json"
signature_policy = "$WORK/policy.json"
[crio.network]
network_dir = "$WORK/$1/cni"
plugin_dirs = ["/usr/lib/cni"]
[crio.metrics]
enable_metrics = false
[crio.nri]
enable_nri = false
EOF
    "$CRIO/crio" -c "$WORK/$1/crio.conf" -d "$WORK/$1/conf.d" \
        --registries-conf "$WORK/registries.conf" >"$1/log" 2>&1 &
    echo $! >pid
    CRICTL="crictl -c /dev/null -r unix:///run/$1/sock -i unix:///run/$1/sock -t 100s"
    eventually $CRICTL info >/dev/null
}

stop() {
    kill "$(cat pid)"
    while kill -0 "$(cat pid)" 2>/dev/null; do sleep 0.1; done
}
