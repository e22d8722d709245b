# What bash adds: arrays, process substitution, coprocesses, job control words, traps.
set -o pipefail
declare -A map=([one]=1 [two]=2)
list=(a "b c" d)
echo "${#list[@]} ${list[1]} $((map[one] + map[two]))"
diff <(seq 1 5) <(seq 2 6)
echo "diff status $?"
coproc CAT { cat; }
echo "through the coprocess" >&"${CAT[1]}"
read -r line <&"${CAT[0]}"
echo "$line"
eval "exec ${CAT[1]}>&-"
read -r first rest <<<"here string words"
echo "$first|$rest"
trap 'echo "exit trap $?"' EXIT
trap 'echo got TERM' TERM
kill -TERM $$
echo {1..3}{a,b}
printf '%05.2f %s %x\n' 3.14159 text 255
(echo sub; exit 4) | cat
echo "pipe status ${PIPESTATUS[*]}"
false | true
echo "pipefail $?"
for i in 3 1 2; do { sleep 0.0$i; echo "slept $i" >>log; } & done
wait
sort log
( trap 'echo interrupted; exit 9' INT; kill -INT $BASHPID; sleep 5 )
echo "subshell $?"
sleep 50 &
sleep 0.1
kill %%
wait $!
echo "background $?"
time_limit() { timeout 0.1 sleep 10; echo "timeout gave $?"; }
time_limit
mapfile -t lines < <(printf 'x\ny\nz\n')
echo "${lines[@]}"
[[ "abc123" =~ ^([a-z]+)([0-9]+)$ ]] && echo "${BASH_REMATCH[2]}"
exec 5<>rw; echo data >&5; cat rw
ulimit -n 64; ulimit -n
umask 027; touch masked; stat -c %a masked
set -e
(set +e; false; echo survived)
cat missing-file 2>/dev/null || echo "no file"
exit 12
