# unshare and nsenter: what a process in namespaces of its own sees, and what others see of it.
set -e
hostname >before
unshare -Urmpf --mount-proc sh -c 'id -u; id -g; echo "pid $$"; echo /proc/[0-9]*; cat /proc/self/uid_map | tr -s " "'
unshare -Uru sh -c 'hostname inner; hostname'
[ "$(hostname)" = "$(cat before)" ] && echo "outer name kept"
unshare -Urn sh -c 'tail -n +3 /proc/net/dev | wc -l; ip link set lo up && ip -4 -o addr show lo | tr -s " " | cut -d " " -f 2-4'
unshare -Ur --map-user=5 sh -c 'id -u'
su -s /bin/sh nobody -c 'unshare -Ur id -u; unshare -U id -u; unshare -u true 2>&1; unshare -Ur chown 7 /dev/null 2>&1' || echo refused

# Mounts: private to whoever made them, unless shared.
mkdir -p private
unshare -Urm sh -c 'mount -t tmpfs none private; touch private/file; ls private; umount private; mount -t tmpfs none /tmp; ls /tmp | wc -l'
ls private | wc -l
unshare -Urm sh -c 'umount /proc 2>&1 || echo locked'
unshare -Urm sh -c '
    mkdir -p new && mount -t tmpfs none new && mkdir new/old new/bin new/lib new/lib64 new/usr new/proc
    for dir in bin lib lib64 usr; do mount --rbind /$dir new/$dir; done
    cd new && pivot_root . old && ls / && ls /old | grep -x proc'

# Entered by pid, all at once or one by one.
mkfifo go
unshare -Urmupf --mount-proc sh -c 'hostname target; read line <go' &
child=
until child=$(pgrep -P $!) && [ -n "$child" ] && [ "$(nsenter -U -u -t "$child" hostname 2>/dev/null)" = target ]; do
    sleep 0.05
done
nsenter -U -u -t "$child" hostname
nsenter -U --preserve-credentials -m -p -t "$child" sh -c 'id -u; cat /proc/1/comm'
nsenter -U -m -u -p -t "$child" sh -c 'ls /proc | grep -c "^1$"'
echo >go
wait $!
echo "ended $?"
