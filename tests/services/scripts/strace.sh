# The tracer of system calls, with threads, children, signals, filters and faults that it injects.
cat >threads.c <<'C'
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>
static int ends[2];
static void *thread(void *arg)
{
    char byte = (char)(long)arg;
    return (void *)(long)write(ends[1], &byte, 1);
}
int main(void)
{
    pthread_t threads[4];
    char byte;
    long sum = 0;
    pipe(ends);
    for (long i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, thread, (void *)i);
    for (int i = 0; i < 4; i++)
        sum += read(ends[0], &byte, 1) + byte;
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    printf("sum %ld\n", sum);
    return 3;
}
C
gcc -O0 -w -pthread -o threads threads.c || fail compiler
s() { timeout 120 strace "$@"; echo "strace ended with $?"; }

# What is the same every time of the counts.
s -f -c -S name -U name,calls,errors -o counts ./threads
grep -wE 'access|clone3|close|execve|exit_group|mprotect|openat|pipe2?|pread64|read|set_robust_list|set_tid_address|write' counts

# Numbers and addresses are not the same every time.
plain() { sed -E 's/^[0-9]+ +//; s/0x[0-9a-f]{4,}/ADDR/g; s/si_pid=[0-9]+/si_pid=N/; s/si_([us])time=[0-9]+/si_\1time=T/g; s/kill\([0-9]+/kill(N/; s/[0-9]+ vars/vars/'; }
echo '== children'
# The child waits until its maker has, so that the lines come in one order.
cat >family.sh <<'SH'
exec 8<>fifo
(read -r go <&8; exit 3) &
echo go >&8
wait $!
(exit 4)
trap 'echo caught' USR1
kill -USR1 $$
kill -TERM $$
SH
mkfifo fifo
s -f -qq -e trace=execve,exit_group,kill -e signal=all -o log bash family.sh
plain <log | sort | uniq -c

echo '== faults and paths'
echo text >file
s -y -P /tmp/file -e trace=openat,read,close -o log cat /tmp/file
plain <log
s -qq -e trace=openat -e fault=openat:error=ENOSPC:when=1 -P /tmp/file -o log cat /tmp/file 2>&1
plain <log
s -qq -e trace=getppid -e inject=getppid:retval=77 -o log python3 -c 'import os; print(os.getppid())'
plain <log
s -qq -e trace=mkdir -e inject=mkdir:signal=SIGUSR2 -o log python3 -c '
import os, signal
signal.signal(signal.SIGUSR2, lambda *_: print("signal"))
os.mkdir("made")'
plain <log

echo '== a filter chooses the calls'
s --seccomp-bpf -f -qq -e trace=chdir,mkdir,rmdir -e signal=none -o log sh -c 'mkdir d1; cd d1; rmdir ../d1'
plain <log

echo '== attach'
mkfifo questions answers
sh -c 'read -r x; echo "got $x"; read -r y; mkdir "$y"; echo made' <questions >answers &
child=$!
exec 8>questions 9<answers
timeout 120 strace -e trace=mkdir,write,exit_group -o log -p $child 2>said &
tracer=$!
wait_for attached grep -q attached said
echo one >&8
read -r line <&9
echo "$line"
kill -TERM $tracer
ended strace $tracer
echo d2 >&8
read -r line <&9
echo "$line"
ended traced $child
plain <log
sed -E 's/[0-9]+/N/g' said
