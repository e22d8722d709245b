# Trees copied locally, to a daemon and back: links, modes, times, sparse and changed files, deletions.
mkdir -p tree/deep/er tree/empty
for i in $(seq 200); do echo "file $i" >tree/deep/f$i; done
head -c 2000000 /dev/zero | openssl enc -aes-128-ctr -K 00 -iv 00 2>/dev/null >tree/random
ln -s ../random tree/deep/link
ln tree/random tree/deep/er/hard
mkfifo tree/fifo
truncate -s 20M tree/sparse
chmod 4755 tree/deep/f1
chmod 600 tree/deep/f2
chown 1000:1001 tree/deep/f3
touch -d '2001-02-03 04:05:06.789' tree/deep/f4
list() {
    (cd "$1" && find . -printf '%p %y %m %U:%G %l ' \( -type f -printf '%n %s %TY-%Tm' -o -true \) -printf '\n' | sort >/tmp/list)
    if cmp -s /tmp/list "/tmp/list.${2:-tree}"; then echo same; else cp /tmp/list "/tmp/list.${2:-tree}"; wc -l </tmp/list; fi
}
sync_tree() { rsync -aH --numeric-ids --stats "$@" >stats 2>&1 || fail "rsync $*" stats; grep -E '^(Number of (regular files transferred|deleted files|created files)|Total transferred)' stats; }
sync_tree --sparse tree/ copy
list tree
list copy
cmp tree/random copy/random
stat -c '%n %y' copy/deep/f4 | cut -c1-37
[ "$(stat -c %b copy/sparse)" -lt 100 ] && echo sparse
sync_tree tree/ copy
echo changed >>tree/random
printf X | dd of=tree/random bs=1 seek=1000000 conv=notrunc status=none
rm -r tree/deep/f1*
sync_tree --delete --checksum --inplace --no-whole-file tree/ copy
list tree
list copy

# A daemon with a module that needs a password.
echo 'user:secret' >secrets; chmod 600 secrets
echo secret >password; chmod 600 password
cat >rsyncd.conf <<'END'
port = 8730
address = 127.0.0.1
use chroot = yes
uid = 0
gid = 0
pid file = /tmp/rsyncd.pid
log file = /tmp/rsyncd.log
[module]
path = /tmp/module
read only = no
auth users = user
secrets file = /tmp/secrets
END
mkdir module
rsync --daemon --no-detach --config rsyncd.conf &
server=$!
wait_for rsyncd rsync --password-file=password rsync://user@127.0.0.1:8730/module/
rsync --password-file=secrets rsync://user@127.0.0.1:8730/module/ 2>&1 | head -1
sync_tree --password-file=password -z tree/ rsync://user@127.0.0.1:8730/module/
list module
sync_tree --password-file=password --delete rsync://user@127.0.0.1:8730/module/ back
list back
echo more >module/deep/er/new
sync_tree --password-file=password rsync://user@127.0.0.1:8730/module/ back
for i in 1 2 3 4; do rsync -aH --password-file=password rsync://user@127.0.0.1:8730/module/ parallel$i & jobs="${jobs:-} $!"; done
wait $jobs
for i in 1 2 3 4; do list parallel$i; done | sort -u | wc -l
kill -TERM $server
ended rsyncd $server
