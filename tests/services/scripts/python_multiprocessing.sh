# multiprocessing: each way to start, shared memory, queues, managers, and servers with threads and children.
set -e
export HOME=/tmp
cat >test_multiprocessing.py <<'END'
import ctypes, http.server, multiprocessing as mp, os, signal, socket, socketserver, subprocess, sys, threading, time, urllib.request, xmlrpc.client, xmlrpc.server
from multiprocessing import shared_memory, managers
def square(x): return x * x
def count(value, lock, n):
    for _ in range(n):
        with lock: value.value += 1
def shm(name, i): m = shared_memory.SharedMemory(name); m.buf[i] = i + 1; m.close()
def ping(conn):
    while (x := conn.recv()) != "end": conn.send(x + 1)
def relay(q, r):
    for item in iter(q.get, None): r.put(item * 2)
def wait(barrier, event, n):
    barrier.wait(); event.wait(); n.release()
def fill(d, l, i): d[i] = i * i; l.append(i)
class Web(http.server.BaseHTTPRequestHandler):
    def do_GET(self): body = self.path.encode(); self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *a): pass
def main():
    for how in "fork", "spawn", "forkserver":
        c = mp.get_context(how)
        with c.Pool(3) as pool: print(how, sum(pool.map(square, range(200))), pool.apply_async(square, (9,)).get(60))
    v, lock = mp.Value(ctypes.c_long, 0), mp.Lock(); ps = [mp.Process(target=count, args=(v, lock, 300)) for _ in range(5)]; [p.start() for p in ps]; [p.join() for p in ps]; print("value", v.value)
    m = shared_memory.SharedMemory(create=True, size=100); ps = [mp.Process(target=shm, args=(m.name, i)) for i in range(5)]; [p.start() for p in ps]; [p.join() for p in ps]; print("shm", list(m.buf[:6])); m.close(); m.unlink()
    a, b = mp.Pipe(); p = mp.Process(target=ping, args=(b,)); p.start(); x = 0
    for _ in range(200): a.send(x); x = a.recv()
    a.send("end"); p.join(); print("pipe", x, p.exitcode)
    q, r = mp.Queue(), mp.Queue(); ps = [mp.Process(target=relay, args=(q, r)) for _ in range(3)]; [p.start() for p in ps]; [q.put(i) for i in range(300)]; print("queue", sum(r.get() for _ in range(300))); [q.put(None) for _ in ps]; [p.join() for p in ps]
    bar, ev, n = mp.Barrier(5), mp.Event(), mp.Semaphore(0); ps = [mp.Process(target=wait, args=(bar, ev, n)) for _ in range(4)]; [p.start() for p in ps]; bar.wait(); ev.set(); [n.acquire() for _ in ps]; [p.join() for p in ps]; print("barrier")
    with mp.Manager() as man:
        d, l = man.dict(), man.list(); ps = [mp.Process(target=fill, args=(d, l, i)) for i in range(4)]; [p.start() for p in ps]; [p.join() for p in ps]; print("manager", sorted(d.items()), sorted(l))
    p = mp.Process(target=time.sleep, args=(100,)); p.start(); p.terminate(); p.join(); print("terminated", p.exitcode)
    p = mp.Process(target=os._exit, args=(5,)); p.start(); p.join(); print("exit", p.exitcode)
    s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web); threading.Thread(target=s.serve_forever, daemon=True).start()
    get = lambda i: urllib.request.urlopen(f"http://127.0.0.1:{s.server_port}/{i}").read().decode()
    with mp.pool.ThreadPool(8) as pool: print("http", sorted(set(pool.map(get, [i % 7 for i in range(100)]))))
    s.shutdown(); s.server_close()
    class Forking(socketserver.ForkingMixIn, socketserver.TCPServer): pass
    class Upper(socketserver.StreamRequestHandler):
        def handle(self): self.wfile.write(self.rfile.readline().upper())
    s = Forking(("127.0.0.1", 0), Upper); threading.Thread(target=s.serve_forever, daemon=True).start()
    for i in range(10):
        c = socket.create_connection(s.server_address); c.sendall(b"line %d\n" % i); back = c.makefile().read(); c.close()
    print("forking", back.strip()); s.shutdown(); s.server_close()
    x = xmlrpc.server.SimpleXMLRPCServer(("127.0.0.1", 0), logRequests=False); x.register_function(pow); threading.Thread(target=x.serve_forever, daemon=True).start(); print("rpc", xmlrpc.client.ServerProxy("http://127.0.0.1:%d" % x.server_address[1]).pow(2, 10)); x.shutdown()
if __name__ == "__main__": main()
END
python3 test_multiprocessing.py
