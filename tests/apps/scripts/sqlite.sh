# The sqlite3 shell: transactions, journals, two writers.
set -e
sqlite3 a.db 'create table t(a, b); insert into t values (1, "x"), (2, "y");'
sqlite3 a.db 'select * from t order by a desc; select count(*) from t; pragma integrity_check;'
sqlite3 a.db 'with recursive c(x) as (select 1 union all select x + 1 from c where x < 20000) insert into t select x, hex(x) from c; select sum(a) from t;'
sqlite3 a.db 'pragma journal_mode=wal; begin; delete from t where a % 2; commit; select count(*) from t; vacuum; create index i on t(b); select b from t where b = "32";'
for i in 1 2 3 4; do sqlite3 -cmd '.timeout 20000' a.db "insert into t values ($i, 'writer')" & done; wait
sqlite3 a.db "select count(*) from t where b = 'writer'"; sqlite3 a.db .dump | sqlite3 b.db; sqlite3 b.db 'select count(*), sum(a) from t'
sqlite3 a.db 'select bad syntax' 2>/dev/null || echo "status $?"
