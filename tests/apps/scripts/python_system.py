import asyncio, ctypes, fcntl, mmap, os, select, selectors, signal, socket, sqlite3, stat, struct, sys, tempfile, time, zlib, hashlib, pathlib, shutil, resource
m = mmap.mmap(-1, 8192); m[:5] = b"hello"; m.seek(4096); m.write(b"world"); print(m[:5], m[4096:4101], m.find(b"world")); m.close()
with tempfile.NamedTemporaryFile() as f:
    f.write(b"0123456789" * 1000); f.flush()
    with mmap.mmap(f.fileno(), 0) as m: m[5:8] = b"abc"; m.flush()
    f.seek(3); print(f.read(8), os.fstat(f.fileno()).st_size)
    fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB); print("locked")
m = mmap.mmap(-1, 4096)
if os.fork() == 0: m[0:4] = struct.pack("i", 77); os._exit(0)
os.wait(); print(struct.unpack("i", m[0:4])[0])
db = sqlite3.connect("test.db"); db.execute("pragma journal_mode=wal"); db.execute("create table t (k integer primary key, v text)")
with db: db.executemany("insert into t (v) values (?)", [(f"value {i}",) for i in range(2000)])
db.execute("create index i on t (v)"); print(db.execute("select count(*), min(v), max(v) from t").fetchone())
try:
    with db: db.execute("delete from t"); raise KeyError
except KeyError: print("rolled back", db.execute("select count(*) from t").fetchone())
other = sqlite3.connect("test.db"); print(other.execute("select v from t where k = 1500").fetchone(), other.execute("pragma integrity_check").fetchone()); other.close(); db.close()
got = []
signal.signal(signal.SIGUSR1, lambda s, f: got.append(s)); os.kill(os.getpid(), signal.SIGUSR1); print("signal", got)
signal.signal(signal.SIGALRM, lambda s, f: got.append(s)); signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
while len(got) < 6: signal.pause()
signal.setitimer(signal.ITIMER_REAL, 0); print("timer", got[-1] == signal.SIGALRM)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2]); os.kill(os.getpid(), signal.SIGUSR2); print(signal.sigpending(), signal.sigwait([signal.SIGUSR2]))
r, w = os.pipe(); p = select.poll(); p.register(r, select.POLLIN); print(p.poll(10)); os.write(w, b"x"); print(len(p.poll(1000)))
a, b = socket.socketpair(); a.sendall(b"ping"); print(b.recv(10)); b.close(); print(a.recv(10))
sel = selectors.DefaultSelector(); sel.register(r, selectors.EVENT_READ, "pipe"); print([k.data for k, _ in sel.select(1)], type(sel).__name__)
async def tick(n):
    for i in range(3): await asyncio.sleep(0.005)
    return n
async def run():
    print(await asyncio.gather(*(tick(i) for i in range(5))))
    p = await asyncio.create_subprocess_exec("cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE); print(await p.communicate(b"async"))
    try: await asyncio.wait_for(asyncio.sleep(10), 0.02)
    except asyncio.TimeoutError: print("async timeout")
asyncio.run(run())
print(zlib.crc32(b"x" * 100000), hashlib.sha256(b"abc").hexdigest()[:16], len(zlib.compress(os.urandom(1000))) > 900)
d = pathlib.Path(tempfile.mkdtemp()); (d / "sub").mkdir(); (d / "sub" / "f").write_text("text"); os.symlink("sub/f", d / "link"); print((d / "link").read_text(), sorted(p.name for p in d.rglob("*")), [e.name for e in os.scandir(d) if e.is_symlink()])
os.chmod(d / "sub" / "f", 0o640); print(oct((d / "sub" / "f").stat().st_mode), stat.filemode((d).stat().st_mode)); shutil.copytree(d, str(d) + "2", symlinks=True); shutil.rmtree(d); print(d.exists())
fd = os.memfd_create("x"); os.write(fd, b"abc"); print(os.pread(fd, 3, 0), os.sched_getaffinity(0) != set(), resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 10)
t = time.monotonic(); time.sleep(0.02); print(time.monotonic() - t >= 0.02, time.time() > 1.6e9, time.process_time() >= 0)
try: open("/no/such/file")
except FileNotFoundError as e: print(e.strerror)
libc = ctypes.CDLL(None); print(libc.getpid() == os.getpid(), libc.abs(-5))
print(os.get_terminal_size.__name__, os.isatty(0), os.cpu_count() >= 1, os.uname().sysname, sys.platform); sys.exit(9)
