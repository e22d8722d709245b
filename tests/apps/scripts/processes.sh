# A thousand processes at once, and a deep tree of them.
set -e
pids=(); for i in $(seq 1 1000); do sleep 300 & pids+=($!); done
echo "${#pids[@]} started"; kill "${pids[@]}"; n=0
for p in "${pids[@]}"; do wait "$p" 2>/dev/null || [ $? -ne 143 ] || n=$((n + 1)); done; echo "$n ended by SIGTERM"
deep() { if [ "$1" -gt 0 ]; then (deep $(($1 - 1))); else echo bottom; fi; }; deep 30
for i in $(seq 1 200); do /bin/true; done; echo done; seq 1 50 | xargs -P 8 -I{} sh -c 'echo {}' | sort -n | tail -n 1
