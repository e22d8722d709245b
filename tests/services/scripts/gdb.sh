# A debugger with a program of several threads: started under it, attached to, and killed by it.
cat >threads.c <<'C'
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

#define N 3
static pthread_barrier_t barrier, done;
volatile int go_on, watched, counter;
static long sums[N];

struct pair { int left; const char *right; };

int add(int a, int b) { return a + b; }

static long work(int index, struct pair *pair)
{
    long sum = 0;
    for (int i = 0; i <= 10 * index; i++)
        sum += add(i, pair->left);
    return sum;
}

static void *thread(void *arg)
{
    int index = (int)(long)arg;
    struct pair pair = { index, "pair" };
    pthread_barrier_wait(&barrier);
    while (!go_on)
        usleep(1000);
    sums[index] = work(index, &pair);
    pthread_barrier_wait(&done);
    return NULL;
}

static void on_usr1(int signo) { counter += signo; }

int main(int argc, char **argv)
{
    pthread_t threads[N];
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
    signal(SIGUSR1, on_usr1);
    pthread_barrier_init(&barrier, NULL, N + 1);
    pthread_barrier_init(&done, NULL, N);
    for (long i = 0; i < N; i++)
        pthread_create(&threads[i], NULL, thread, (void *)i);
    pthread_barrier_wait(&barrier);
    if (argc > 1)
        puts(argv[1]), fflush(stdout);
    else
        go_on = 1;
    for (int i = 0; i < N; i++)
        pthread_join(threads[i], NULL);
    raise(SIGUSR1);
    watched = 1;
    watched = 7;
    printf("sums %ld %ld %ld counter %d\n", sums[0], sums[1], sums[2], counter);
    return sums[2] == 0;
}
C
gcc -g -O0 -pthread -o threads threads.c || fail compiler

# Addresses, numbers of threads and the machine's name for itself are not the same every time.
plain() { sed -E 's/0x[0-9a-f]+/ADDR/g; s/(LWP|process|Process) [0-9]+/\1 N/g; s/xstate.[0-9]+/xstate N/; /libthread_db/d'; }
debug() {
    timeout 120 gdb -nx -q -batch -ex 'set pagination off' -ex 'set width 0' -ex 'set confirm off' \
        -ex 'set debuginfod enabled off' -ex 'set print thread-events off' "$@" 2>&1 | plain
    echo "gdb ended with ${PIPESTATUS[0]}"
}

cat >steps <<GDB
break work if index == 2
run
printf "at work: index %d left %d right %s\\n", index, pair->left, pair->right
backtrace 2
info breakpoints
thread apply all -q -s printf "%d ", \$_thread
echo \\n
step
next
next
print sum
stepi
x/i \$pc
set variable pair->left = 100
finish
tbreak on_usr1
handle SIGUSR1 nostop noprint pass
continue
finish
set can-use-hw-watchpoints 0
tbreak $(grep -n 'watched = 1' threads.c | cut -d: -f1)
continue
delete
watch watched
continue
continue
delete
continue
GDB
debug -x steps ./threads

echo '== attach'
mkfifo said
./threads ready >said &
child=$!
exec 9<said
read -r word <&9
echo "$word"
cat >attached <<'GDB'
set logging enabled off
thread apply all -q -s printf "%d ", $_thread
echo \n
print go_on
print watched
set variable go_on = 1
detach
GDB
timeout 120 gdb -nx -q -batch -ex 'set debuginfod enabled off' -x attached -p $child ./threads 2>&1 | plain | grep -E '^\$|detached|^4 '
cat <&9
exec 9<&-
ended threads $child

echo '== kill, and a program that dies'
debug -ex 'break add if a == 3 && b == 2' -ex run -ex 'print a' -ex kill -ex 'info threads' ./threads
cat >crash.c <<'C'
int zero;
int down(int n) { return n ? down(n - 1) + 1 : *(volatile int *)(long)zero; }
int main(void) { return down(3); }
C
gcc -g -O0 -o crash crash.c || fail compiler
debug -ex run -ex backtrace -ex 'print $_siginfo.si_signo' -ex 'print $_siginfo._sifields._sigfault.si_addr' -ex continue ./crash

echo '== a core file'
cat >many.c <<'C'
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>
static pthread_barrier_t barrier;
int table[1000] = { 1, 2, 3 };
static void *thread(void *arg)
{
    pthread_barrier_wait(&barrier);
    for (;;)
        pause();
    return arg;
}
static void fail(const char *why, double half) { if (half > 0) abort(); }
int main(void)
{
    pthread_t thread_id;
    int *heap = malloc(100 * sizeof *heap);
    heap[99] = table[2] = 99;
    pthread_barrier_init(&barrier, NULL, 3);
    for (int i = 0; i < 2; i++)
        pthread_create(&thread_id, NULL, thread, NULL);
    pthread_barrier_wait(&barrier);
    fail("because", 0.5);
}
C
gcc -g -O0 -pthread -o many many.c || fail compiler
(ulimit -c unlimited; exec ./many word) &
wait $! 2>how
echo "many ended with $?"
# A host whose pattern is another one keeps the file; then one by the debugger serves.
[ -e core ] || debug -ex 'run word' -ex 'generate-core-file core' ./many >how
debug -ex 'backtrace 3' -ex 'up 3' -ex 'frame function fail' -ex 'info locals' -ex 'print why' -ex 'print half' \
    -ex 'frame function main' -ex 'print heap[99]' -ex 'print table[2]' -ex 'print $_siginfo.si_signo' \
    -ex 'info sharedlibrary' ./many core | grep -E '^(#|\$|many|Core|Program|warning|ADDR)|fail|libc.so'
debug -ex 'thread apply all -q -s frame function thread' -ex 'info auxv' ./many core |
    grep -oE '^#. +ADDR in thread|AT_PAGESZ|AT_EXECFN.*|AT_ENTRY' | sort

echo '== forks and executes'
cat >forks.c <<'C'
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
int child(void) { return 9; }
int main(int argc, char **argv)
{
    int status;
    if (argc > 1)
        return 7;
    if (fork() == 0)
        _exit(child());
    wait(&status);
    printf("child %d\n", WEXITSTATUS(status));
    fflush(stdout);
    return execl("/proc/self/exe", "forks", "again", NULL);
}
C
gcc -g -O0 -o forks forks.c || fail compiler
debug -ex 'set follow-fork-mode child' -ex 'break child' -ex 'run >/dev/null' -ex 'finish' -ex continue ./forks
debug -ex 'catch fork' -ex 'catch exec' -ex run -ex continue -ex continue ./forks
