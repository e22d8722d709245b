"""Clients outside: the same lines for every runtime. Arguments: what to try, and the container's addresses."""
import hashlib, os, resource, socket, sys, threading, time

what, v4, v6 = sys.argv[1:4]
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)


def dial(port, host=v4):
    return socket.create_connection((host, port), 60)


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


def tcp(host):
    for n in (0, 1, 1447, 100_000, 3_000_000):
        s, data = dial(7000, host), os.urandom(n)
        sender = threading.Thread(target=lambda: (s.sendall(data), s.shutdown(socket.SHUT_WR)))
        sender.start()
        print("echo", n, rest(s) == data)
        sender.join()
    s = dial(7001, host)
    for _ in range(64):
        s.sendall(bytes(65536))
    s.shutdown(socket.SHUT_WR)
    print("count", rest(s))
    print("pour", hashlib.sha256(rest(dial(7002, host))).hexdigest())
    # Whether in the midst of connecting or after.
    print("reset", attempt(lambda: dial(7003, host).recv(1)))
    print("name", rest(dial(7004, host)).decode())
    s = dial(7000, host)
    s.sendall(b"unread")
    s.close()
    print("nobody", attempt(lambda: dial(7999, host)), attempt(lambda: dial(7100, host)))


def udp(family, host):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.settimeout(60)
    s.connect((host, 7000))
    for n in (0, 1, 1472, 1473, 9000, 60000):
        data = os.urandom(n)
        s.send(data)
        print("udp", n, s.recv(70000) == data)
    s.connect((host, 7999))
    s.send(b"?")
    print("nobody", attempt(lambda: s.recv(1)))


def many(n):
    held = []
    for _ in range(n):
        s = dial(7005)
        held.append(s)
    numbers = sorted(int(s.makefile().readline()) for s in held)
    print("many", numbers == list(range(1, n + 1)))
    for i, s in enumerate(held):
        s.sendall(b"%08d" % i)
    print("said again", all(s.recv(8, socket.MSG_WAITALL) == b"%08d" % i for i, s in enumerate(held)))
    for s in held:
        s.close()
    deadline = time.monotonic() + 60
    while (left := rest(dial(7006))) != b"0 0" and time.monotonic() < deadline:
        time.sleep(0.1)
    print("left", left)


if what == "basics":
    for host in (v4, v6):
        tcp(host)
    udp(socket.AF_INET, v4)
    udp(socket.AF_INET6, v6)
elif what == "name":
    print("name", rest(dial(7004)).decode(), rest(dial(7004, v6)).decode())
elif what == "loss":
    data = os.urandom(2_000_000)
    s = dial(7000)
    sender = threading.Thread(target=lambda: (s.sendall(data), s.shutdown(socket.SHUT_WR)))
    sender.start()
    print("echo", rest(s) == data)
    sender.join()
else:
    many(int(what))
