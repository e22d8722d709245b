"""Clients in the container: what is outside, from within. Arguments: addresses outside."""
import os, socket, subprocess, sys, time

v4, v6, nobody = sys.argv[1:4]


def attempt(f):
    try:
        return f()
    except OSError as error:
        return os.strerror(error.errno) if error.errno else type(error).__name__


def tcp(host, n):
    s = socket.create_connection((host, 8000), 60)
    names = s.getsockname()[0], s.getpeername()[:2]
    data = os.urandom(n)
    s.sendall(data)
    s.shutdown(socket.SHUT_WR)
    back = b""
    while more := s.recv(65536):
        back += more
    return names, back == data


for host in (v4, v6):
    print("tcp", tcp(host, 100_000))
    print("refused", attempt(lambda: socket.create_connection((host, 9), 60)))


def take(s, n):
    data = b""
    s.settimeout(60)
    while len(data) < n and (more := s.recv(n - len(data))):
        data += more
    return data


def held(host):
    for _ in range(100):
        s = socket.create_connection((host, 8000), 60)
        began = time.monotonic()
        s.send(b"ab", socket.MSG_MORE)
        s.settimeout(0.05)
        early = attempt(lambda: s.recv(9))
        # Later it would have left by itself.
        if time.monotonic() - began < 0.15:
            break
    s.send(b"c")
    results = [early, take(s, 3)]
    s.send(b"d", socket.MSG_MORE)
    results.append(take(s, 1))
    s.setsockopt(socket.SOL_TCP, socket.TCP_CORK, 1)
    s.send(b"e")
    s.setsockopt(socket.SOL_TCP, socket.TCP_CORK, 0)
    results.append(take(s, 1))
    s.setsockopt(socket.SOL_TCP, socket.TCP_NODELAY, 1)
    data = os.urandom(5000)
    for at in range(0, 5000, 100):
        s.sendall(data[at : at + 100], socket.MSG_MORE)
    s.shutdown(socket.SHUT_WR)
    return results, take(s, 5001) == data


print("held", held(v4), held(v6))
print("unreachable", attempt(lambda: socket.create_connection((nobody, 9), 60)))
print("no route", attempt(lambda: socket.create_connection(("192.0.2.9", 9), 60)))
print("no route", attempt(lambda: socket.create_connection(("2001:db8::9", 9), 60)))
s = socket.socket()
s.setblocking(False)
print("later", s.connect_ex((v4, 9)) == 115)
poll = __import__("select").poll()
poll.register(s, 4)
poll.poll()
print("error", os.strerror(s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)))
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.settimeout(60)
u.connect((v4, 9))
u.send(b"x")
print("udp", u.getsockname()[0], attempt(lambda: u.recv(1)))
own_v4 = u.getsockname()[0]


def checksum(data):
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    total = (total >> 16) + (total & 0xFFFF)
    return (~(total + (total >> 16)) & 0xFFFF).to_bytes(2, "big")


def ping(family, kind, protocol, request, host):
    s = socket.socket(family, kind, protocol)
    s.settimeout(60)
    rest = b"\x12\x34\0\1" + b"payload!"
    s.sendto(bytes([request, 0]) + checksum(bytes([request, 0, 0, 0]) + rest) + rest, (host, 0))
    while True:
        data, peer = s.recvfrom(2000)
        message = data[20:] if (family, kind) == (socket.AF_INET, socket.SOCK_RAW) else data
        # A raw socket sees everything.
        if message[0] in (0, 129):
            return message[0], message[6:], peer[0]


for host in (v4, "127.0.0.1", own_v4):
    print("raw", ping(socket.AF_INET, socket.SOCK_RAW, 1, 8, host))
    print("ping", ping(socket.AF_INET, socket.SOCK_DGRAM, 1, 8, host))
for host in (v6, "::1"):
    print("raw", ping(socket.AF_INET6, socket.SOCK_RAW, 58, 128, host))
    print("ping", ping(socket.AF_INET6, socket.SOCK_DGRAM, 58, 128, host))
# A resolver on the loopback interface of the namespace.
r = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
r.settimeout(60)
r.sendto(b"\xab\xcdquestion of DNS", ("127.0.0.11", 53))
print("resolver", attempt(lambda: r.recvfrom(100)))
# Within: an own address, and who listens everywhere.
listener = socket.create_server(("", 8001))
own = own_v4
for host in ("127.0.0.1", own):
    s = socket.create_connection((host, 8001), 60)
    c, peer = listener.accept()
    print("own", s.getsockname()[0], peer[0])
print("taken", attempt(lambda: socket.create_server(("192.0.2.1", 8002))))
for command in ("ip -br -4 addr show eth9", "ip -br -6 addr show eth9 scope global", "ip route show dev eth9"):
    print(command, subprocess.run(command.split(), capture_output=True, text=True).stdout.replace("@if2", "").split())
print(open("/proc/net/route").read().split()[11:14], socket.if_nameindex()[0])
