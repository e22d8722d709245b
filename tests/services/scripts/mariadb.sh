# A database is made, loaded by several clients, killed, and recovers.
mkdir data sockets
chown mysql:mysql data sockets
mariadb-install-db --no-defaults --user=mysql --datadir=/tmp/data --auth-root-authentication-method=normal \
    --skip-test-db --skip-name-resolve --innodb-log-file-size=10M >install.log 2>&1 || fail install install.log
start() {
    mariadbd --no-defaults --user=mysql --datadir=/tmp/data --socket=/tmp/sockets/s --bind-address=127.0.0.1 --port=3307 \
        --innodb-log-file-size=10M --innodb-buffer-pool-size=16M --skip-name-resolve --pid-file=/tmp/sockets/pid "$@" >>server.log 2>&1 &
    server=$!
    wait_for mariadb mariadb-admin --no-defaults -S /tmp/sockets/s -u root ping
}
q() { mariadb --no-defaults -S /tmp/sockets/s -u root -N -B "$@"; }
start
q -e 'select 6 * 7'
q <<'END'
create database d;
use d;
create user 'u'@'127.0.0.1' identified by 'secret';
grant all on d.* to 'u'@'127.0.0.1';
create table t (id int primary key auto_increment, word varchar(40), n int, key (word)) engine=innodb;
insert into t (word, n) select md5(seq), seq % 100 from seq_1_to_5000;
select count(*), sum(n), min(word) from t;
create table a (id int primary key, word text) engine=aria;
insert into a select id, word from t where id <= 500;
select count(*) from a;
start transaction;
delete from t;
rollback;
select count(*) from t;
create table counter (n int) engine=innodb;
insert into counter values (0);
delimiter //
create procedure add_some(k int) begin while k > 0 do update counter set n = n + 1; insert into t (word, n) values ('p', k); set k = k - 1; end while; end //
END
for i in 1 2 3 4 5; do
    mariadb --no-defaults -h 127.0.0.1 -P 3307 -u u -psecret -N d -e 'call add_some(40)' &
    clients="${clients:-} $!"
done
wait $clients
q d -e "select n from counter; select count(*), sum(n) from t where word = 'p'"
seq 1 800 | sed 's/$/\tline/' >/tmp/sockets/lines
chmod 644 /tmp/sockets/lines
q d -e "create table l (id int, word varchar(10)); load data infile '/tmp/sockets/lines' into table l; select count(*), sum(id) from l"
q d -e 'check table t; checksum table a; analyze table t' | cut -f 2-

# Killed in the middle of writing.
(for i in $(seq 2000); do echo "insert into t (word, n) values ('storm', $i);"; done) | q d >storm 2>&1 &
client=$!
wait_for writes sh -c "mariadb --no-defaults -S /tmp/sockets/s -u root -N d -e \"select count(*) > 20 from t where word = 'storm'\" | grep -q 1"
killed server $server
wait $client
start
q d -e "select count(*) > 20 and count(*) = max(n) from t where word = 'storm'; select count(*) from t where word <> 'storm'; select n from counter; check table t, a" | sed 's/\t$//'
mariadb-dump --no-defaults -S /tmp/sockets/s -u root --skip-comments --compact d l | grep -c INSERT
mariadb-admin --no-defaults -S /tmp/sockets/s -u root shutdown
ended server $server
