"""Servers in the container: what comes back is seen from outside."""
import os, resource, selectors, socket, struct, threading

resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)


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
    c.sendall(bytes(range(256)) * 4096 * 8)
    c.close()


def reset(c):
    c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    c.close()


def name(c):
    c.sendall(repr((c.getsockname()[:2], c.getpeername()[0])).encode())
    c.close()


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def established():
    lines = open("/proc/net/tcp").readlines() + open("/proc/net/tcp6").readlines()
    return sum(line.split()[3] == "01" for line in lines)


def hold(listener):
    """Keeps every connection, says its number, and gives back what comes until its end."""
    n = 0
    ready.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in ready.select():
            c = key.fileobj
            if c is listener:
                c, _ = listener.accept()
                n += 1
                c.sendall(b"%d\n" % n)
                ready.register(c, selectors.EVENT_READ)
            elif data := c.recv(65536):
                c.sendall(data)
            else:
                ready.unregister(c)
                c.close()


def left(c):
    """Says what there is beyond the start, but for this connection itself."""
    c.sendall(b"%d %d" % (descriptors() - at_start - 1, established() - 1))
    c.close()


def serve(listener, handle, threads):
    while True:
        c, _ = listener.accept()
        if threads:
            threading.Thread(target=handle, args=(c,), daemon=True).start()
        else:
            handle(c)


ready = selectors.DefaultSelector()
for port, handle in enumerate((echo, count, pour, reset, name, hold, left), 7000):
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096)
    target, args = (hold, (listener,)) if handle is hold else (serve, (listener, handle, handle is not left))
    threading.Thread(target=target, args=args, daemon=True).start()
# Nobody outside reaches this one.
local = socket.create_server(("127.0.0.1", 7100))
udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
udp.bind(("::", 7000))
at_start = descriptors()
print("ready", flush=True)
while True:
    data, peer = udp.recvfrom(70000)
    udp.sendto(data, peer)
