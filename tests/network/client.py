"""Clients in the container: what is outside, from within. Arguments: addresses outside."""
import os, socket, subprocess, sys

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
# Within: an own address, and who listens everywhere.
listener = socket.create_server(("", 8001))
own = u.getsockname()[0]
for host in ("127.0.0.1", own):
    s = socket.create_connection((host, 8001), 60)
    c, peer = listener.accept()
    print("own", s.getsockname()[0], peer[0])
print("taken", attempt(lambda: socket.create_server(("192.0.2.1", 8002))))
for command in ("ip -br -4 addr show eth9", "ip -br -6 addr show eth9 scope global", "ip route show dev eth9"):
    print(command, subprocess.run(command.split(), capture_output=True, text=True).stdout.replace("@if2", "").split())
print(open("/proc/net/route").read().split()[11:14], socket.if_nameindex()[0])
