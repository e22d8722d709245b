# A server with four threads: clients of the text protocol over TCP and a unix socket, limits, and its statistics.
memcached -u root -m 16 -t 4 -l 127.0.0.1 -p 11300 -U 0 -I 512k >log 2>&1 &
server=$!
memcached -u root -m 16 -t 2 -s /tmp/socket >>log 2>&1 &
local_server=$!
wait_for memcached python3 -c 'import socket; socket.create_connection(("127.0.0.1", 11300))'
wait_for socket python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect("/tmp/socket")'

# bash has a client of its own.
exec 3<>/dev/tcp/127.0.0.1/11300
printf 'set greeting 5 0 5\r\nhello\r\nget greeting\r\nadd greeting 0 0 1\r\nx\r\nincr none 1\r\ndelete greeting\r\nquit\r\n' >&3
tr -d '\r' <&3
exec 3>&-

cat >client.py <<'END'
import socket, sys, threading

class Client:
    def __init__(self, address):
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family)
        self.socket.settimeout(120)
        self.socket.connect(address)
        self.file = self.socket.makefile("rwb")
    def ask(self, line, data=None):
        self.file.write(line.encode() + b"\r\n" + (b"" if data is None else data + b"\r\n"))
        self.file.flush()
        return self.file.readline().strip().decode()
    def get(self, key):
        head = self.ask("get " + key).split()
        if head[0] == "END":
            return None
        data = self.file.read(int(head[3]) + 2)[:-2]
        self.file.readline()
        return data
    def stats(self):
        self.file.write(b"stats\r\n")
        self.file.flush()
        lines = iter(lambda: self.file.readline().strip().decode(), "END")
        return dict(line.split()[1:3] for line in lines)

def work(address, number, wrong):
    client = Client(address)
    for i in range(150):
        key, data = f"key-{number}-{i}", bytes([number]) * (i * 7 % 900)
        if client.ask(f"set {key} 0 0 {len(data)}", data) != "STORED" or client.get(key) != data:
            wrong.append(key)
        client.ask("incr counter 1")

for address in [("127.0.0.1", 11300), "/tmp/socket"]:
    first = Client(address)
    print(first.ask("flush_all"), first.ask("set counter 0 0 1", b"0"))
    wrong = []
    threads = [threading.Thread(target=work, args=(address, n, wrong)) for n in range(6)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    print("wrong:", wrong, "counter:", first.get("counter").decode())
    large = bytes(range(256)) * 1600
    print(first.ask(f"set large 0 0 {len(large)}", large), first.get("large") == large)
    stats = first.stats()
    print(stats["curr_items"], stats["threads"], stats["cmd_set"])

# More than the memory holds: the oldest go.
client = Client(("127.0.0.1", 11300))
for i in range(120):
    client.ask(f"set fill{i} 0 0 300000", b"x" * 300000)
print("evicted:", int(client.stats()["evictions"]) > 0, "last:", len(client.get("fill119")))
crowd = [Client(("127.0.0.1", 11300)) for _ in range(100)]
print("crowd:", sum(c.ask("version").startswith("VERSION") for c in crowd))
END
python3 client.py
kill -TERM $server $local_server
ended memcached $server
ended memcached $local_server
