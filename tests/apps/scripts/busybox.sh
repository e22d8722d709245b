# Pipelines, here-documents, traps, background jobs, functions: the shell of small systems.
set -u
echo "one two three" | tr ' ' '\n' | sort -r | head -n 2
cat <<END
here $((6 * 7)) document
	with a tab
END
cat <<'END' | wc -l
$not expanded
second line
END
fact() { [ "$1" -le 1 ] && echo 1 || echo $(($1 * $(fact $(($1 - 1))))); }
fact 7
for i in 1 2 3; do
    (sleep 0.0$i; echo "job $i" >out.$i) &
done
wait
cat out.1 out.2 out.3
trap 'echo trapped USR1' USR1
kill -USR1 $$
trap 'echo leaving' EXIT
(exit 7)
echo "status $?"
false || echo "or"
true && echo "and"
yes | head -n 3
seq 1 1000 | awk '{ s += $1 } END { print s }'
sleep 100 &
pid=$!
kill $pid # Whether the shell says so depends on when the job is found dead.
wait $pid 2>/dev/null
echo "killed: $?"
case abc in a*) echo matched ;; *) echo not ;; esac
x=$(printf '%s-' a b c); echo "${x%-} ${#x}"
while read -r a b; do echo "$b $a"; done <<END
first second
third fourth
END
mkdir -p d/e && echo deep >d/e/f && ls -R d
busybox sh -c 'echo nested; exit 3'
echo "nested status $?"
exec 3>fd3; echo via three >&3; exec 3>&-; cat fd3
ls /no/such 2>/dev/null || echo "ls failed with $?"
