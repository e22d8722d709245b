# asyncio: servers and clients over TCP, TLS and unix sockets, children, signals, pools.
set -e
export HOME=/tmp
cat >test_asyncio.py <<'END'
import asyncio, os, signal, socket, ssl, subprocess, sys, tempfile, concurrent.futures, contextlib
os.chdir(tempfile.mkdtemp())
subprocess.run("openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 9 -subj /CN=localhost -addext subjectAltName=DNS:localhost".split(), check=True, capture_output=True)
sctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); sctx.load_cert_chain("cert.pem", "key.pem")
cctx = ssl.create_default_context(cafile="cert.pem")
async def echo(r, w):
    while data := await r.read(65536):
        w.write(data); await w.drain()
    w.close()
async def talk(port, n, **kw):
    r, w = await asyncio.open_connection("127.0.0.1", port, **kw)
    data = bytes(i % 251 for i in range(n)); w.write(data); back = await r.readexactly(n); w.close()
    with contextlib.suppress(Exception): await w.wait_closed()
    return back == data
async def main():
    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(echo, "127.0.0.1", 0); port = server.sockets[0].getsockname()[1]
    print("tcp", sum(await asyncio.gather(*(talk(port, 1000 * i + 1) for i in range(60))))); server.close()
    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=sctx); port = server.sockets[0].getsockname()[1]
    print("tls", sum(await asyncio.gather(*(talk(port, 5000 * i + 1, ssl=cctx, server_hostname="localhost") for i in range(20))))); server.close()
    server = await asyncio.start_unix_server(echo, "s.sock")
    r, w = await asyncio.open_unix_connection("s.sock"); w.write(b"x" * 300000); print("unix", len(await r.readexactly(300000))); w.close(); server.close()
    procs = await asyncio.gather(*(asyncio.create_subprocess_shell(f"cat; exit {i}", stdin=-1, stdout=-1) for i in range(12)))
    outs = await asyncio.gather(*(p.communicate(b"in%d" % i) for i, p in enumerate(procs)))
    print("children", [o[0].decode() for o in outs], [p.returncode for p in procs])
    p = await asyncio.create_subprocess_exec("sleep", "100")
    try: await asyncio.wait_for(p.wait(), 0.05)
    except asyncio.TimeoutError: p.kill(); print("timeout", await p.wait())
    got = asyncio.Event(); loop.add_signal_handler(signal.SIGUSR1, got.set); os.kill(os.getpid(), signal.SIGUSR1); await got.wait(); print("signal")
    class Udp(asyncio.DatagramProtocol):
        def connection_made(self, t): self.t = t
        def datagram_received(self, d, a): self.t.sendto(d.upper(), a)
    t, _ = await loop.create_datagram_endpoint(Udp, ("127.0.0.1", 0)); addr = t.get_extra_info("sockname")
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.setblocking(False); await loop.sock_connect(s, addr); await loop.sock_sendall(s, b"udp"); print(await loop.sock_recv(s, 99)); t.close(); s.close()
    with concurrent.futures.ThreadPoolExecutor(8) as pool: print("threads", sum(await asyncio.gather(*(loop.run_in_executor(pool, sum, range(i)) for i in range(200)))))
    with concurrent.futures.ProcessPoolExecutor(3) as pool: print("processes", sum(await asyncio.gather(*(loop.run_in_executor(pool, pow, i, 2) for i in range(100)))))
    q = asyncio.Queue(3); order = []
    async def produce():
        for i in range(50): await q.put(i)
    async def consume():
        for _ in range(50): order.append(await q.get())
    await asyncio.gather(produce(), consume()); print("queue", order == list(range(50)))
    r, w = os.pipe(); reader = asyncio.StreamReader(); await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(r, "rb")); os.write(w, b"line\n"); os.close(w); print("pipe", await reader.read())
    print("dns", (await loop.getaddrinfo("localhost", 80, family=socket.AF_INET, type=socket.SOCK_STREAM))[0][4])
    async def slow(): await asyncio.sleep(100)
    task = asyncio.create_task(slow()); await asyncio.sleep(0); task.cancel()
    try: await task
    except asyncio.CancelledError: print("cancelled")
asyncio.run(main())
END
python3 test_asyncio.py
