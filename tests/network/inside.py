"""Servers in the container: what comes back is seen from outside."""
import resource, socket, struct, threading

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


held = []


def hold(c):
    held.append(c)
    c.sendall(b"%d\n" % len(held))


def serve(listener, handle, threads):
    while True:
        c, _ = listener.accept()
        if threads:
            threading.Thread(target=handle, args=(c,), daemon=True).start()
        else:
            handle(c)


for port, handle in enumerate((echo, count, pour, reset, name, hold), 7000):
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096)
    args = (listener, handle, handle is not hold)
    threading.Thread(target=serve, args=args, daemon=True).start()
# Nobody outside reaches this one.
local = socket.create_server(("127.0.0.1", 7100))
udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
udp.bind(("::", 7000))
print("ready", flush=True)
while True:
    data, peer = udp.recvfrom(70000)
    udp.sendto(data, peer)
