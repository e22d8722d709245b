"""A client in the container whose server falls silent. Argument: the server's address."""
import os, socket, struct, sys, time


def attempt(f):
    try:
        return f()
    except OSError as error:
        return os.strerror(error.errno) if error.errno else type(error).__name__


def linger(s, seconds):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, seconds))


def close(s):
    started = time.monotonic()
    s.close()
    return time.monotonic() - started


alive, patient, lingering, quick = (socket.create_connection((sys.argv[1], 8000), 100) for _ in range(4))
for option, value in ((socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 2)):
    alive.setsockopt(socket.IPPROTO_TCP, option, value)
alive.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
# It is asked whether it is there, and says so.
time.sleep(4)
alive.sendall(b"x")
print("alive", alive.recv(1))
linger(quick, 100)
quick.sendall(bytes(100_000))
print("all has arrived", close(quick) < 90)
# Nothing is on its way when nobody answers any more.
alive.sendall(b"be silent")
print("from now on", alive.recv(2))
print("kept alive", attempt(lambda: alive.recv(1)))
patient.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1500)
patient.sendall(b"x")
print("patient", attempt(lambda: patient.recv(1)))
linger(lingering, 2)
lingering.sendall(b"x")
print("lingers", 1.9 < close(lingering) < 90)
