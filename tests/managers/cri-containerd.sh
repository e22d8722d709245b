# Starting containerd for the scripts of Kubernetes' interface, for use after `cri.sh`, with an archive `pause.tar` of the
# image `localhost/pause:latest` that holds a pod. Its handlers are `theirs` with the shim for runc, `ours` with our own, and
# `path` with our own under the type of the other, of which alone containerd asks for the runtime's features.

SUITES=$CACHE/suites
SHIM=${SHIM:-$(dirname "$RUNTIME")/containerd-shim-runsc-v1}
export CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS=1
mkdir -p shims "certs.d/$REGISTRY"
ln -s "$SHIM" shims/containerd-shim-runsc-v1
printf 'binary_name = "%s"\nroot = "/run/runsc-shim"\n' "$RUNTIME" >runsc.toml
printf 'server = "http://%s"\n[host."http://%s"]\n  capabilities = ["pull", "resolve"]\n' \
    "$REGISTRY" "$REGISTRY" >"certs.d/$REGISTRY/hosts.toml"

# Starts the containerd of a suite, with a network of its own. Its argument is the suite and the network's number.
start() {
    local bin=$SUITES/$1/usr/bin version=2 images=io.containerd.grpc.v1.cri
    local runtimes=$images bin_dir='bin_dir = "/usr/lib/cni"'
    local sandbox='sandbox_image = "localhost/pause:latest"'
    if [ "$1" = sid ]; then
        version=3 images=io.containerd.cri.v1.images runtimes=io.containerd.cri.v1.runtime
        bin_dir='bin_dirs = ["/usr/lib/cni"]' sandbox=
    fi
    mkdir -p "$WORK/$1/cni"
    cat >"$WORK/$1/cni/net.conflist" <<EOF
{"cniVersion": "0.4.0", "name": "$1", "plugins": [
  {"type": "bridge", "bridge": "$1", "isGateway": true, "ipMasq": true,
   "ipam": {"type": "host-local", "dataDir": "$WORK/$1/ipam", "ranges": [[{"subnet": "10.77.$2.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
EOF
    cat >"$WORK/$1/config.toml" <<EOF
version = $version
root = "$WORK/$1/root"
state = "/run/$1"
[grpc]
  address = "/run/$1/sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "$WORK/$1/opt"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "localhost/pause:latest"
[plugins."$images".registry]
  config_path = "$WORK/certs.d"
[plugins."$runtimes"]
  $sandbox
  disable_apparmor = true
  restrict_oom_score_adj = true
[plugins."$runtimes".cni]
  $bin_dir
  conf_dir = "$WORK/$1/cni"
[plugins."$runtimes".containerd]
  default_runtime_name = "theirs"
[plugins."$runtimes".containerd.runtimes.theirs]
  runtime_type = "io.containerd.runc.v2"
[plugins."$runtimes".containerd.runtimes.theirs.options]
  BinaryName = "$RUNTIME"
[plugins."$runtimes".containerd.runtimes.path]
  runtime_type = "io.containerd.runc.v2"
  runtime_path = "$WORK/shims/containerd-shim-runsc-v1"
[plugins."$runtimes".containerd.runtimes.path.options]
  BinaryName = "$RUNTIME"
[plugins."$runtimes".containerd.runtimes.ours]
  runtime_type = "io.containerd.runsc.v1"
[plugins."$runtimes".containerd.runtimes.ours.options]
  TypeUrl = "io.containerd.runsc.v1.options"
  ConfigPath = "$WORK/runsc.toml"
EOF
    PATH=$WORK/shims:$bin:$PATH containerd -c "$WORK/$1/config.toml" >"$WORK/$1/log" 2>&1 &
    echo $! >"$WORK/pid"
    CRICTL="crictl -c /dev/null -r unix:///run/$1/sock -i unix:///run/$1/sock -t 100s"
    eventually $CRICTL info >/dev/null && "$bin/ctr" -a "/run/$1/sock" -n k8s.io image import pause.tar >/dev/null
}

stop() {
    kill "$(cat "$WORK/pid")"
    while kill -0 "$(cat "$WORK/pid")" 2>/dev/null; do sleep 0.1; done
}
