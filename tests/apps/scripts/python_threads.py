import concurrent.futures, queue, threading, time
lock, total = threading.Lock(), 0
def add(n):
    global total
    for _ in range(n):
        with lock:
            total += 1
threads = [threading.Thread(target=add, args=(5000,)) for _ in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
print("total", total)
q, results = queue.Queue(5), []
def produce():
    for i in range(100):
        q.put(i)
    q.put(None)
def consume():
    while (item := q.get()) is not None:
        results.append(item * item)
pair = [threading.Thread(target=produce), threading.Thread(target=consume)]
[t.start() for t in pair]; [t.join() for t in pair]
print("queue", sum(results))
event, order = threading.Event(), []
def waiter():
    event.wait(); order.append("woken")
t = threading.Thread(target=waiter); t.start(); time.sleep(0.02); order.append("set"); event.set(); t.join()
print(order)
barrier = threading.Barrier(5); winners = []
def meet():
    if barrier.wait() == 0: winners.append(1)
ts = [threading.Thread(target=meet) for _ in range(5)]; [t.start() for t in ts]; [t.join() for t in ts]
print("barrier", len(winners))
with concurrent.futures.ThreadPoolExecutor(6) as pool:
    print(sum(pool.map(lambda x: x ** 2, range(500))))
timer_ran = threading.Event(); threading.Timer(0.02, timer_ran.set).start(); print("timer", timer_ran.wait(5))
cond, turn, log = threading.Condition(), 0, []
def player(me):
    global turn
    for _ in range(20):
        with cond:
            cond.wait_for(lambda: turn % 3 == me); log.append(me); turn += 1; cond.notify_all()
ps = [threading.Thread(target=player, args=(i,)) for i in range(3)]; [p.start() for p in ps]; [p.join() for p in ps]
print("".join(map(str, log)))
local = threading.local(); local.x = 1; seen = []
t = threading.Thread(target=lambda: seen.append(hasattr(local, "x"))); t.start(); t.join(); print(seen)
