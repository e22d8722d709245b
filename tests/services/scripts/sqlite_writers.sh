# sqlite: concurrent writers and readers in several processes and threads, in each journal mode; a killed writer.
set -e
export HOME=/tmp
cat >test_sqlite.py <<'END'
import multiprocessing, os, random, signal, sqlite3, sys, tempfile, threading
os.chdir(tempfile.mkdtemp())
def connect(name): c = sqlite3.connect(name, timeout=200, isolation_level=None); c.execute("pragma synchronous=normal"); return c
def writer(name, me, n):
    c = connect(name)
    for i in range(n):
        c.execute("begin immediate"); c.execute("insert into t(who, i, data) values (?, ?, ?)", (me, i, bytes(100 + i * 37 % 3000))); c.execute("update n set total = total + 1"); c.execute("rollback" if i % 10 == 9 else "commit")
    c.close()
def reader(name, n, out):
    c, last, good = connect(name), 0, True
    for _ in range(n):
        c.execute("begin"); rows = c.execute("select count(*) from t").fetchone()[0]; total = c.execute("select total from n").fetchone()[0]; c.execute("commit"); good = good and rows == total and rows >= last; last = rows
    out.put(good)
def victim(name):
    c = connect(name); c.execute("begin immediate"); c.execute("pragma cache_size=5"); c.execute("update t set data = zeroblob(5000)"); os.kill(os.getpid(), signal.SIGKILL)
def main(mode):
    name = mode + ".db"; c = connect(name); print(mode, c.execute(f"pragma journal_mode={mode}").fetchone()[0])
    c.execute("create table t(id integer primary key, who, i, data)"); c.execute("create table n(total)"); c.execute("insert into n values (0)"); c.execute("create index x on t(who, i)")
    out = multiprocessing.Queue(); ps = [multiprocessing.Process(target=writer, args=(name, w, 40)) for w in range(5)] + [multiprocessing.Process(target=reader, args=(name, 40, out)) for _ in range(3)]
    [p.start() for p in ps]; print([out.get() for _ in range(3)]); [p.join() for p in ps]; print([p.exitcode for p in ps])
    print(c.execute("select count(*), count(distinct who), sum(length(data)) from t").fetchall(), c.execute("select total from n").fetchall(), c.execute("pragma integrity_check").fetchall())
    v = multiprocessing.Process(target=victim, args=(name,)); v.start(); v.join(); print("victim", v.exitcode)
    print(c.execute("select count(*), sum(length(data)) from t").fetchall(), c.execute("pragma integrity_check").fetchall())
    ts = [threading.Thread(target=writer, args=(name, 10 + w, 20)) for w in range(4)]; [t.start() for t in ts]; [t.join() for t in ts]
    print(c.execute("select count(*) from t").fetchall(), c.execute("pragma integrity_check").fetchall()); c.execute("vacuum"); c.close(); print(sorted(os.listdir(".")))
for mode in "wal", "delete", "truncate", "persist": main(mode)
END
python3 test_sqlite.py
