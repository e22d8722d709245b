# What programs take, by their own clock: `programs.sh NAME…` prints lines `NAME NANOSECONDS`.
# /tmp is a tmpfs, /files lies on the root, /bind is a folder of the host. Each function prepares, then calls `took`.
set -eu
export LC_ALL=C.UTF-8 HOME=/tmp PYTHONDONTWRITEBYTECODE=1
mkdir -p /files
cd /tmp

# Runs a command and prints how long it took: `took NAME PARTS COMMAND…`; of many like parts, each one's time.
took() {
    local name=$1 parts=$2 start end
    shift 2
    start=${EPOCHREALTIME/./}
    "$@" >/tmp/out 2>&1 || { echo "$name: $* failed: $(tail -n 3 /tmp/out)" >&2; return 1; }
    end=${EPOCHREALTIME/./}
    echo "$name $(((end - start) * 1000 / parts))"
}

# A rate as a time.
rate() { awk -v name="$1" -v rate="$2" 'BEGIN { if (rate > 0) printf "%s %.0f\n", name, 1e9 / rate }'; }

repeat() {
    local times=$1
    shift
    for ((i = 0; i < times; i++)); do "$@" || return 1; done
}

wait_for() {
    local tries=0
    until "$@" >/dev/null 2>&1; do
        [ $((tries += 1)) -lt 600 ] || { echo "$* does not succeed" >&2; return 1; }
        sleep 0.05
    done
}

prog_python_start() { took "$1" 10 repeat 10 python3 -S -c pass; }

prog_python_imports() {
    took "$1" 3 repeat 3 python3 -c 'import asyncio, ctypes, email.message, http.client, json, sqlite3, ssl, unittest, xml.dom.minidom'
}

subshells() { for ((i = 0; i < 300; i++)); do (:); done; }
prog_shell_subshell() { took "$1" 300 subshells; }

commands() { for ((i = 0; i < 100; i++)); do /bin/true; done; }
prog_shell_command() { took "$1" 100 commands; }

pipelines() { for ((i = 0; i < 30; i++)); do echo "$i" | cat | tr 0-9 a-j | wc -c; done; }
prog_shell_pipeline() { took "$1" 30 pipelines; }

prog_find() { find /usr/lib >/dev/null; took "$1" 1 find /usr/lib -name '*.so' -size +10k; }
prog_grep() { grep -rc import /usr/lib/python3 /usr/lib/python3.11 >/dev/null; took "$1" 1 grep -rc import /usr/lib/python3 /usr/lib/python3.11; }

untar() { rm -rf /files/tree; mkdir /files/tree; tar -C /files/tree -xf /tmp/tree.tar; }
prog_tar_out() { took "$1" 1 tar -C /usr/lib -cf /tmp/tree.tar python3.11; }
prog_tar_in() { tar -C /usr/lib -cf /tmp/tree.tar python3.11/email python3.11/asyncio python3.11/json; took "$1" 1 untar; }
prog_rm_tree() { [ -d /files/tree ] || { prog_tar_in x >/dev/null; }; took "$1" 1 rm -r /files/tree; }

prog_gcc() {
    mkdir -p /files/gcc
    for i in 1 2 3 4; do
        printf '#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\nint f%d(int n) { char *p = malloc(n); memset(p, n, n); int s = 0; for (int i = 0; i < n; i++) s += p[i]; free(p); printf("%%d\\n", s); return s; }\n' "$i" >/files/gcc/$i.c
    done
    took "$1" 4 sh -c 'cd /files/gcc && for i in 1 2 3 4; do gcc -O1 -c $i.c -o $i.o || exit 1; done'
}

prog_cargo() {
    mkdir -p /files/crate/src
    printf '[package]\nname = "c"\nversion = "0.1.0"\nedition = "2021"\n' >/files/crate/Cargo.toml
    echo 'fn main() { println!("{:?}", std::env::args().collect::<Vec<_>>()); }' >/files/crate/src/main.rs
    took "$1" 1 sh -c 'cd /files/crate && CARGO_HOME=/tmp/cargo cargo build --offline -q'
}

prog_sqlite() {
    cat >sqlite.py <<'PY'
import sqlite3
db = sqlite3.connect("/files/db.sqlite")
db.execute("create table if not exists t (id integer primary key, word text)")
for i in range(100):
    db.execute("insert into t (word) values (?)", (f"word {i}",))
    db.commit()
with db:
    db.executemany("insert into t (word) values (?)", ((f"word {i}",) for i in range(30000)))
print(db.execute("select count(*), max(word) from t").fetchone())
PY
    took "$1" 1 python3 sqlite.py
}

commits() { for ((i = 0; i < 20; i++)); do echo "$i" >"file$i"; git add "file$i"; git commit -qm "commit $i"; done; }
repository() {
    rm -rf /files/git
    mkdir /files/git
    cd /files/git
    git init -q
    git config user.name a
    git config user.email a@b
    git config gc.auto 0
}
prog_git_commit() { command -v git >/dev/null || return 0; repository; took "$1" 20 commits; cd /tmp; }
prog_git_gc() { command -v git >/dev/null || return 0; repository; commits; took "$1" 1 git gc -q; cd /tmp; }

prog_redis() {
    redis-server --port 7101 --save '' --dir /tmp >/dev/null 2>&1 &
    wait_for redis-cli -p 7101 ping
    local rates
    rates=$(redis-benchmark -p 7101 -n 20000 -c 20 --csv -t set,get | tr -d '"' | awk -F, '$1 != "test" { print $1, $2 }')
    redis-cli -p 7101 shutdown nosave >/dev/null 2>&1 || true
    wait
    rate "$1" "$(awk '$1 == "GET" { print $2 }' <<<"$rates")"
}

prog_nginx() {
    mkdir -p www logs
    head -c 1000 /dev/zero >www/index.html
    cat >nginx.conf <<'CONF'
worker_processes 1; user root; daemon off; pid /tmp/nginx.pid; error_log /tmp/logs/error warn;
events { worker_connections 200; }
http { access_log off; client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u;
  scgi_temp_path /tmp/s; server { listen 127.0.0.1:7102; root /tmp/www; keepalive_requests 1000000; } }
CONF
    nginx -p /tmp -c /tmp/nginx.conf &
    wait_for curl -fs http://127.0.0.1:7102/
    local said
    said=$(wrk -t 1 -c 20 -d 1s http://127.0.0.1:7102/)
    kill "$(cat /tmp/nginx.pid)"
    wait
    rate "$1" "$(awk '$1 == "Requests/sec:" { print $2 }' <<<"$said")"
}

prog_node_start() { took "$1" 3 repeat 3 node -e 0; }

prog_node_http() {
    cat >http.js <<'JS'
const http = require('http'), agent = new http.Agent({keepAlive: true, maxSockets: 8});
const server = http.createServer((q, s) => s.end('hello'));
server.listen(0, '127.0.0.1', () => {
  let left = 2000, open = 0;
  const next = () => {
    while (open < 8 && left > 0) { open++; left--;
      http.get({port: server.address().port, host: '127.0.0.1', agent}, s => { s.resume(); s.on('end', () => { open--; next(); }); }); }
    if (open === 0 && left === 0) process.exit(0);
  };
  next();
});
JS
    took "$1" 2000 node http.js
}

prog_pgbench() {
    local bin
    bin=$(echo /usr/lib/postgresql/*/bin)
    export PATH=$bin:$PATH PGHOST=/tmp/pg PGPORT=7103 PGUSER=postgres PGDATABASE=postgres
    local as=(setpriv --reuid=postgres --regid=postgres --init-groups)
    rm -rf /tmp/pg
    mkdir /tmp/pg
    chown postgres /tmp/pg
    "${as[@]}" initdb -D /tmp/pg/data -A trust -U postgres --no-sync --locale=C.UTF-8 >/dev/null
    printf "listen_addresses = ''\nunix_socket_directories = '/tmp/pg'\nshared_buffers = 16MB\n" >>/tmp/pg/data/postgresql.conf
    "${as[@]}" postgres -D /tmp/pg/data -p 7103 >/tmp/pg.log 2>&1 &
    local server=$!
    wait_for pg_isready -q
    pgbench -i -s 1 -q >/dev/null 2>&1
    local said
    said=$(pgbench -c 4 -j 1 -t 200 2>/dev/null)
    kill -INT $server
    wait
    rate "$1" "$(awk '$1 == "tps" { print $3; exit }' <<<"$said")"
}

prog_asyncio() {
    cat >aio.py <<'PY'
import asyncio
async def serve(reader, writer):
    while data := await reader.read(100):
        writer.write(data)
    writer.close()
async def client(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(200):
        writer.write(b"x" * 50)
        await reader.readexactly(50)
    writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    await asyncio.gather(*(client(server.sockets[0].getsockname()[1]) for _ in range(10)))
asyncio.run(main())
PY
    took "$1" 2000 python3 aio.py
}

prog_multiprocessing() {
    cat >mp.py <<'PY'
import multiprocessing
def square(x): return x * x
if __name__ == "__main__":
    with multiprocessing.Pool(4) as pool:
        assert sum(pool.imap(square, range(2000), chunksize=10)) == sum(x * x for x in range(2000))
PY
    took "$1" 1 python3 mp.py
}

prog_touch() { took "$1" 256 dd if=/dev/zero of=/dev/null bs=256M count=1; }

# The file systems: of the root, in memory, and a folder of the host.
files() {
    local said
    said=$(/bench-guest file "$2")
    for what in write_mib read_mib write_4k read_4k; do
        echo "$1_$what $(awk -v what=$what '$1 == what { print $2 }' <<<"$said")"
    done
}
prog_file_root() { files "$1" /files; }
prog_file_tmpfs() { files "$1" /tmp; }
prog_file_bind() { files "$1" /bind; }

if [ "$1" = list ]; then
    declare -F | sed -n 's/^declare -f \(prog_.*\)/\1/p'
    exit
fi
status=0
for name; do "$name" "$name" || status=1; done
exit $status
