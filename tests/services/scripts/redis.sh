# A server with an append-only file and snapshots, its benchmark, a restart from each, and a replica.
start() {
    redis-server --port "$1" --dir "/tmp/$1" --save '' --appendonly yes --repl-diskless-sync-delay 0 --unixsocket "/tmp/$1/socket" \
        --unixsocketperm 700 --loglevel warning "${@:2}" >>"$1.log" 2>&1 &
    server=$!
    wait_for redis redis-cli -p "$1" ping
}
mkdir 6400 6401
start 6400
redis-benchmark -p 6400 -q -n 2000 -c 20 -P 4 -t set,get,incr,lpush,lpop,sadd,hset,mset >benchmark 2>&1 || fail benchmark benchmark
tr '\r' '\n' <benchmark | grep -c 'requests per second, p50='
redis-benchmark -s /tmp/6400/socket -q -n 1000 -c 10 -t ping,set >benchmark 2>&1 || fail benchmark benchmark
tr '\r' '\n' <benchmark | grep -c 'requests per second, p50='
r() { redis-cli -s /tmp/6400/socket "$@"; }
r flushall
for i in $(seq 300); do echo "set key$i value$i"; done | r --pipe 2>&1 | tail -1
r eval 'for i = 1, 1000 do redis.call("rpush", "list", i) end return redis.call("llen", "list")' 0
r lrange list 500 502
redis-cli -p 6400 --raw blpop queue 200 >popped &
waiter=$!
redis-cli -p 6400 --raw subscribe news >heard &
listener=$!
wait_for subscriber sh -c '[ "$(redis-cli -p 6400 pubsub numsub news | tail -1)" = 1 ]'
wait_for waiter sh -c 'redis-cli -p 6400 client list | grep -q cmd=blpop'
r publish news hello
r rpush queue job
wait $waiter
wait_for news grep -q hello heard
kill $listener
paste -sd' ' popped heard

# A replica takes a snapshot that a forked child writes.
first=$server
start 6401 --replicaof 127.0.0.1 6400
wait_for replica sh -c 'redis-cli -p 6401 info replication | grep -q master_link_status:up'
wait_for keys sh -c '[ "$(redis-cli -p 6401 dbsize)" = "$(redis-cli -p 6400 dbsize)" ]'
redis-cli -p 6401 get key77
redis-cli -p 6401 set key77 x 2>&1
# It does not end before its first append-only file is written.
wait_for file sh -c 'redis-cli -p 6401 info persistence | grep -q aof_rewrite_scheduled:0'
wait_for file sh -c 'redis-cli -p 6401 info persistence | grep -q aof_rewrite_in_progress:0'
kill -TERM "$server"
ended replica "$server"

# Rewritten in the background, killed without warning, and read back.
r bgrewriteaof
wait_for rewrite sh -c 'redis-cli -p 6400 info persistence | grep -q aof_rewrite_in_progress:0'
r set last word
killed server "$first"
start 6400
r get last
r dbsize
r save
r config set appendonly no
r shutdown nosave
ended server "$server"
rm -r 6400/appendonlydir
start 6400 --appendonly no
r get key300
r llen list
r shutdown nosave
ended server "$server"
