# gcc and g++ build programs with threads, and these run.
set -e
cat >t.c <<'END'
#define _GNU_SOURCE
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <setjmp.h>
#include <signal.h>
#include <errno.h>
#include <time.h>
#include <unistd.h>
static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER, robust;
static pthread_cond_t c = PTHREAD_COND_INITIALIZER;
static pthread_rwlock_t rw = PTHREAD_RWLOCK_INITIALIZER;
static int count; static __thread int local; static sem_t sem; static sigjmp_buf jump;
static void *work(void *p) { for (int i = 0; i < 10000; i++) { pthread_mutex_lock(&m); count++; pthread_mutex_unlock(&m); local++; } sem_post(&sem); return (void *)(long)local; }
static void *sleeper(void *p) { pthread_mutex_lock(&m); while (count != -1) pthread_cond_wait(&c, &m); pthread_mutex_unlock(&m); return "woken"; }
static void *canceled(void *p) { for (;;) sleep(100); return p; }
static void *dies_with_lock(void *p) { pthread_mutex_lock(&robust); return NULL; }
static void fault(int s) { siglongjmp(jump, 1); }
int main(void) {
    pthread_t t[8]; void *r; long sum = 0; sem_init(&sem, 0, 0);
    for (int i = 0; i < 8; i++) pthread_create(&t[i], NULL, work, NULL);
    for (int i = 0; i < 8; i++) { pthread_join(t[i], &r); sum += (long)r; }
    int posted; sem_getvalue(&sem, &posted); printf("%d %ld %d\n", count, sum, posted);
    pthread_create(&t[0], NULL, sleeper, NULL); usleep(10000);
    pthread_mutex_lock(&m); count = -1; pthread_cond_signal(&c); pthread_mutex_unlock(&m); pthread_join(t[0], &r); puts(r);
    pthread_create(&t[0], NULL, canceled, NULL); usleep(1000); pthread_cancel(t[0]); pthread_join(t[0], &r); puts(r == PTHREAD_CANCELED ? "canceled" : "?");
    pthread_mutexattr_t a; pthread_mutexattr_init(&a); pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_setprotocol(&a, PTHREAD_PRIO_INHERIT); if (pthread_mutex_init(&robust, &a)) puts("no priority inheritance");
    pthread_create(&t[0], NULL, dies_with_lock, NULL); pthread_join(t[0], NULL); int e = pthread_mutex_lock(&robust); puts(e == EOWNERDEAD ? "owner dead" : strerror(e)); pthread_mutex_consistent(&robust); pthread_mutex_unlock(&robust);
    struct timespec ts; clock_gettime(CLOCK_REALTIME, &ts); ts.tv_nsec += 20000000; if (ts.tv_nsec >= 1000000000) { ts.tv_sec++; ts.tv_nsec -= 1000000000; }
    pthread_mutex_lock(&m); printf("%s\n", pthread_cond_timedwait(&c, &m, &ts) == ETIMEDOUT ? "timed out" : "?"); pthread_mutex_unlock(&m);
    pthread_rwlock_rdlock(&rw); printf("%d\n", pthread_rwlock_trywrlock(&rw) == EBUSY); pthread_rwlock_unlock(&rw);
    signal(SIGSEGV, fault); if (!sigsetjmp(jump, 1)) *(volatile int *)8 = 1; else puts("fault caught");
    FILE *f = popen("echo popen; exit 3", "r"); char line[64]; fputs(fgets(line, 64, f), stdout); printf("%d\n", pclose(f) >> 8);
    double d = 0; for (int i = 1; i < 1000; i++) d += 1.0 / i; printf("%.12f\n", d); fflush(stdout);
    abort();
}
END
cat >t.cc <<'END'
#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <future>
#include <iostream>
#include <map>
#include <mutex>
#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>
int main() {
    std::atomic<long> sum{0}; std::vector<std::thread> threads;
    for (int i = 0; i < 6; i++) threads.emplace_back([&, i] { for (int j = 0; j < 10000; j++) sum += i; });
    for (auto &t : threads) t.join();
    std::cout << sum << "\n";
    auto f = std::async(std::launch::async, [] { std::this_thread::sleep_for(std::chrono::milliseconds(10)); return 42; });
    std::promise<std::string> p; std::thread([&p] { p.set_value("promised"); }).join();
    std::cout << f.get() << " " << p.get_future().get() << "\n";
    auto g = std::async(std::launch::async, []() -> int { throw std::runtime_error("thrown in a thread"); });
    try { g.get(); } catch (const std::exception &e) { std::cout << e.what() << "\n"; }
    std::mutex m; std::condition_variable cv; int turn = 0;
    auto play = [&](int me) { for (int i = 0; i < 500; i++) { std::unique_lock l(m); cv.wait(l, [&] { return turn % 2 == me; }); turn++; cv.notify_all(); } };
    std::thread a(play, 0), b(play, 1); a.join(); b.join(); std::cout << turn << "\n";
    std::map<std::string, int> words; for (auto w : {"x", "y", "x"}) words[w]++; for (auto &[k, v] : words) std::cout << k << v; std::cout << std::endl;
    throw std::logic_error("not caught");
}
END
gcc -O1 -Wall -pthread t.c -o tc
g++ -std=c++17 -O1 -pthread t.cc -o tcc
set +e
ulimit -c 0
(./tc; exit $?) 2>/dev/null; echo "C: $?"
(./tcc; exit $?) 2>/dev/null; echo "C++: $?"
echo 'int main(void) { return missing; }' >bad.c; gcc bad.c 2>/dev/null; echo "error: $?"
gcc -static -x c - -o static <<<'#include <stdio.h>
int main(void) { puts("static"); return 0; }' && ./static
