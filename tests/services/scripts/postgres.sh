# A cluster is made, loaded, killed in part and as a whole, and finds its data again.
export PATH=/usr/lib/postgresql/15/bin:$PATH
mkdir data sockets
chown postgres:postgres data sockets
chmod 700 data
as() { setpriv --reuid=postgres --regid=postgres --init-groups "$@"; }
export PGHOST=/tmp/sockets PGUSER=postgres PGDATABASE=postgres
as initdb -D data -A trust -U postgres --no-sync --locale=C.UTF-8 >initdb.log 2>&1 || fail initdb initdb.log
cat >>data/postgresql.conf <<'END'
listen_addresses = '127.0.0.1'
port = 5433
unix_socket_directories = '/tmp/sockets'
shared_buffers = 16MB
max_connections = 30
log_min_messages = fatal
END
export PGPORT=5433
start() {
    as postgres -D data >>server.log 2>&1 &
    server=$!
    wait_for postgres pg_isready -q
}
q() { psql -X -A -t -q -v ON_ERROR_STOP=1 "$@"; }
start
q -c 'select 6 * 7'
pgbench -i -s 1 -q >bench.log 2>&1 || fail 'pgbench -i' bench.log
q -c 'select count(*) from pgbench_accounts'
pgbench -c 6 -j 2 -t 40 >bench.log 2>&1 || fail pgbench bench.log
grep 'actually processed' bench.log
q -h 127.0.0.1 -c 'select count(*) from pgbench_history'
q <<'END'
select sum(abalance) = (select sum(delta) from pgbench_history) from pgbench_accounts;
create table t (id int primary key, word text, at point);
insert into t select i, md5(i::text), point(i, i % 7) from generate_series(1, 20000) i;
create index on t (word);
create index on t using gist (at);
analyze t;
select count(*), min(word), max(word) from t where word < '2';
select id from t where word = md5('777');
set max_parallel_workers_per_gather = 2; set min_parallel_table_scan_size = 0; set parallel_setup_cost = 0;
select sum(id), count(distinct word) from t;
\copy (select id, word from t where id <= 500) to 'copied'
create table c (id int, word text);
\copy c from 'copied'
select count(*), sum(id) from c;
do $$ begin for i in 1..50 loop insert into c values (i, 'loop'); if i % 2 = 0 then rollback; else commit; end if; end loop; end $$;
select count(*) from c where word = 'loop';
END
# One waits for the lock of another, and for its word.
q -c 'begin' -c 'select id from t where id = 1 for update' \
    -c 'do $$ begin while not exists (select from pg_locks where not granted) loop perform pg_sleep(0.02); end loop; end $$' \
    -c "update t set word = 'first' where id = 1" -c 'commit' >one 2>&1 &
one=$!
wait_for lock sh -c "psql -XAtc \"select count(*) > 0 from pg_locks where mode = 'RowShareLock'\" | grep -q t"
q -c "update t set word = word || ' second' where id = 1"
wait $one
q -c 'select word from t where id = 1'

# A backend that is killed takes all others with it; the server recovers by itself.
q -c 'select pg_sleep(100)' >victim 2>&1 &
client=$!
wait_for backend sh -c "psql -XAtc \"select count(*) from pg_stat_activity where query like 'select pg_sleep(100)%' and state = 'active'\" | grep -q 1"
backend=$(q -c "select pid from pg_stat_activity where query like 'select pg_sleep(100)%' and state = 'active'")
kill -KILL "$backend"
wait $client
echo "client ended with $?"
# Not one that is answered before the server has noticed.
wait_for recovery sh -c "[ \"\$(psql -XAtc \"select 1 from pg_stat_activity where pid = $backend\" -c \"select 'recovered'\")\" = recovered ]"
q -c 'select count(*) from t'

# All of it is killed in the middle of writing.
(for i in $(seq 1000); do echo "insert into c values ($i, 'storm');"; done) | q >storm 2>&1 &
client=$!
wait_for writes sh -c "psql -XAtc \"select count(*) > 20 from c where word = 'storm'\" | grep -q t"
pids=$(pgrep -u postgres)
{ kill -KILL $pids; wait $server; } 2>/dev/null
wait $client
# With whoever was made in the last moment, and ends by itself.
wait_for end sh -c '! pgrep -u postgres'
rm -f data/postmaster.pid
start
q <<'END'
select count(*) from t;
select count(*) > 20 and count(*) = max(id) from c where word = 'storm';
set enable_seqscan = off;
select count(*) from t where word >= '';
END
as pg_ctl -D data -m fast -w stop >/dev/null
ended server $server
