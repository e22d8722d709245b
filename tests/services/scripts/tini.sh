# A minimal init: it reaps what it inherits, passes signals on, and ends as its child.
# In a pid namespace or not, as a subreaper where it is not the first process.
tini -s -- sh -c 'exit 7'
echo "exit $?"
tini -s -e 143 -- sh -c 'kill -TERM $$'
echo "mapped $?"
tini -s -- sh -c 'kill -KILL $$'
echo "killed $?"
tini -s -- /nowhere 2>/dev/null
echo "missing $?"

# Orphans become its children and are reaped while the child runs on.
cat >orphans.sh <<'END'
for i in 1 2 3 4 5; do
    (sh -c 'sleep 0.1; exit 3' &)
done
parent=$PPID
tries=0
while [ "$(ps --ppid "$parent" -o pid= | wc -l)" -gt 1 ]; do
    [ $((tries += 1)) -lt 1200 ] || { ps --ppid "$parent" -o pid,ppid,stat,args; exit 1; }
    sleep 0.05
done
echo "no zombies"
END
tini -s -- bash orphans.sh
echo "orphans $?"

# Signals go to the child, and with -g to its whole group.
cat >signals.sh <<'END'
trap 'echo got USR1' USR1
trap 'echo got HUP' HUP
trap 'echo got TERM; exit 5' TERM
touch ready
while :; do sleep 0.05; done
END
tini -s -- bash signals.sh >heard &
pid=$!
wait_for child test -e ready
for signal in USR1 HUP TERM; do
    kill -$signal $pid
    wait_for $signal grep -q "got $signal" heard
done
ended tini $pid
cat heard

cat >group.sh <<'END'
sh 2>/dev/null -c 'trap "echo grandchild >>group" TERM; touch one; while :; do sleep 0.05; done' &
trap 'echo child >>group; wait; exit 0' TERM
touch two
wait
END
rm -f group
tini -s -g -- bash group.sh &
pid=$!
wait_for grandchild test -e one
wait_for child test -e two
kill -TERM $pid
wait_for grandchild grep -q grandchild group
wait_for child grep -q child group
sort -u group
