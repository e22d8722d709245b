"""Servers in the container for who connects to the loopback addresses of its network namespace on the host."""
import errno, select, socket, struct, threading

seen = []
listeners = {}


def echo(c):
    while data := c.recv(65536):
        c.sendall(data)
    c.close()


def count(c):
    n = 0
    while data := c.recv(1 << 20):
        n += len(data)
    c.sendall(b"%d" % n)
    c.close()


def pour(c):
    c.sendall(bytes(range(256)) * 32768)
    c.close()


def reset(c):
    c.recv(1)
    c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    c.close()


def leave_unread(c):
    while len(c.recv(10, socket.MSG_PEEK)) < 10:
        pass
    c.close()


def watch(c):
    c.sendall(c.recv(1))
    try:
        seen.append(repr(c.recv(1)))
    except OSError as error:
        seen.append(errno.errorcode[error.errno])
    c.close()


def names(c):
    c.sendall(("%s %s %s %s" % (c.getsockname()[:2] + c.getpeername()[:2])).encode())
    c.close()


def control(c):
    word, _, port = c.recv(100).decode().partition(" ")
    if word == "close":
        listeners[int(port)].pop(0).close()
    elif word == "open":
        listen(int(port))
    elif word == "seen":
        c.sendall(" ".join(seen).encode())
    c.close()


def listen(port, host="::", reuse=False):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server(
        (host, port), family=family, dualstack_ipv6=host == "::", reuse_port=reuse, backlog=500
    )
    listeners.setdefault(port, []).append(listener)
    return listener


def serve(port, handler, host="::"):
    listener = listen(port, host)

    def accept():
        while True:
            threading.Thread(target=handler, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def serve_by_epoll(port):
    listener = listen(port)
    listener.setblocking(False)
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN | select.EPOLLET)

    def accept():
        while True:
            epoll.poll()
            try:
                while True:
                    threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()
            except BlockingIOError:
                pass

    threading.Thread(target=accept, daemon=True).start()


for number, handler in enumerate([echo, count, pour, reset, leave_unread, watch, names, control]):
    serve(80 + number, handler)
serve(90, echo, "127.0.0.1")
serve(91, echo, "::1")
serve(92, echo, "10.87.0.2")
serve_by_epoll(93)
listen(94)
listen(95, reuse=True)
listen(95, reuse=True)
print("ready", flush=True)
threading.Event().wait()
