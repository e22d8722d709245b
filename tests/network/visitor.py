"""A client at the loopback addresses of the container's network namespace, on the host: the same lines for every
runtime. A server may be reached a moment after it has begun to listen."""
import hashlib, os, socket, struct, threading, time

LIMIT = time.monotonic() + 200


def dial(port, host="127.0.0.1"):
    return socket.create_connection((host, port), 60)


def eventually(f):
    """Tries until it works."""
    while True:
        try:
            return f()
        except (ConnectionRefusedError, AssertionError):
            if time.monotonic() > LIMIT:
                raise
            time.sleep(0.01)


def visit(port, host="127.0.0.1"):
    return eventually(lambda: dial(port, host))


def rest(s):
    data = b""
    while more := s.recv(1 << 20):
        data += more
    return data


def attempt(f):
    try:
        return f()
    except OSError as error:
        return os.strerror(error.errno) if error.errno else type(error).__name__


def tell(words):
    s = visit(87)
    s.sendall(words.encode())
    return rest(s).decode()


def refused(port):
    def check():
        assert attempt(lambda: dial(port).close()) == "Connection refused"

    eventually(check)
    return True


def echo(port, host, n):
    s, data = visit(port, host), os.urandom(n)
    sender = threading.Thread(target=lambda: (s.sendall(data), s.shutdown(socket.SHUT_WR)))
    sender.start()
    same = rest(s) == data
    sender.join()
    return same


for host in ("127.0.0.1", "::1"):
    for n in (0, 1, 100_000, 3_000_000):
        print("echo", host, n, echo(80, host, n))
    s = visit(81, host)
    for _ in range(64):
        s.sendall(bytes(65536))
    s.shutdown(socket.SHUT_WR)
    print("half-closed", rest(s))
    s = visit(82, host)
    time.sleep(0.3)
    print("slow", hashlib.sha256(rest(s)).hexdigest())
    s = visit(83, host)
    s.sendall(b"x")
    print("reset", attempt(lambda: s.recv(1)))
    s = visit(84, host)
    s.sendall(bytes(100))
    print("unread", attempt(lambda: s.recv(1)))
    s = visit(85, host)
    s.sendall(b"x")
    s.recv(1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()
    s = visit(86, host)
    own = s.getsockname()[1]
    local, port, peer, number = rest(s).decode().split()
    strip = lambda name: name.removeprefix("::ffff:")
    print("names", strip(local), port, strip(peer), int(number) == own)


def both_reset():
    assert tell("seen") == "ECONNRESET ECONNRESET"


eventually(both_reset)
print("only", echo(90, "127.0.0.1", 5), attempt(lambda: dial(90, "::1")))
print("only", echo(91, "::1", 5), attempt(lambda: dial(91)))
print("elsewhere", attempt(lambda: dial(92)), attempt(lambda: dial(99)))
print("epoll", [echo(93, "::1", 10) for _ in range(20)].count(True))
clients = [visit(80) for _ in range(300)]
for client in clients:
    client.sendall(b"many")
print("many", sum(client.recv(4) == b"many" for client in clients))
for client in clients:
    client.close()
visit(94).close()
tell("close 94")
print("closed", refused(94))
tell("open 94")
visit(94).close()
visit(95).close()
tell("close 95")
visit(95).close()
tell("close 95")
print("closed", refused(95))
