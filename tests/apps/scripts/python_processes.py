import multiprocessing as mp, os, signal, subprocess, sys, time
def square(x): return x * x
def worker(conn, shared, lock):
    for _ in range(200):
        with lock: shared.value += 1
    conn.send({"sum": sum(conn.recv())}); conn.close()
def main():
    r = subprocess.run(["sh", "-c", "echo out; echo err >&2; exit 3"], capture_output=True, text=True); print(r.returncode, repr(r.stdout), repr(r.stderr))
    print(subprocess.check_output(["tr", "a-z", "A-Z"], input=b"shout"))
    p1 = subprocess.Popen(["seq", "1", "1000"], stdout=subprocess.PIPE); p2 = subprocess.Popen(["wc", "-l"], stdin=p1.stdout, stdout=subprocess.PIPE); p1.stdout.close()
    print(p2.communicate()[0].strip(), p1.wait())
    try: subprocess.run(["sleep", "10"], timeout=0.1)
    except subprocess.TimeoutExpired: print("timed out")
    p = subprocess.Popen(["sleep", "10"]); p.terminate(); print("terminated", p.wait()); 
    try: subprocess.run(["/no/such/program"])
    except FileNotFoundError as e: print("missing", e.errno)
    print(subprocess.run(["sh", "-c", "cat; echo $X; pwd"], input="in\n", cwd="/", env={"X": "env", "PATH": os.environ["PATH"]}, capture_output=True, text=True).stdout)
    for method in ["fork", "spawn", "forkserver"]:
        ctx = mp.get_context(method)
        with ctx.Pool(3) as pool: print(method, sum(pool.map(square, range(100))), pool.apply_async(square, (12,)).get(100))
    ctx = mp.get_context("fork")
    shared, lock = ctx.Value("i", 0), ctx.Lock(); pipes = [ctx.Pipe() for _ in range(4)]
    ps = [ctx.Process(target=worker, args=(child, shared, lock)) for _, child in pipes]; [p.start() for p in ps]
    for i, (parent, _) in enumerate(pipes): parent.send(list(range(i * 10)))
    print([parent.recv() for parent, _ in pipes], [p.join() or p.exitcode for p in ps], shared.value)
    q = ctx.Queue(); ps = [ctx.Process(target=q.put, args=(i,)) for i in range(5)]; [p.start() for p in ps]; print(sorted(q.get() for _ in ps)); [p.join() for p in ps]
    arr = ctx.Array("d", 10); p = ctx.Process(target=lambda: arr.__setitem__(slice(None), [float(i) for i in range(10)])); p.start(); p.join(); print(list(arr))
    from multiprocessing import shared_memory
    m = shared_memory.SharedMemory(create=True, size=100); m.buf[:5] = b"hello"; n = shared_memory.SharedMemory(name=m.name); print(bytes(n.buf[:5])); n.close(); m.close(); m.unlink()
    r, w = os.pipe(); pid = os.fork()
    if pid == 0: os.write(w, b"child"); os._exit(5)
    print(os.read(r, 10), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 6"], os.environ); print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    ps = [subprocess.Popen(["true"]) for _ in range(30)]; print(sum(p.wait() for p in ps))
main()
