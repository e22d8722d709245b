# Tools that show processes, files and sockets: lsof, ss, ip, htop, top, ps, pmap, free.
cat >subject.py <<'PY'
import os, socket, time
data = open("/tmp/data", "w+")
data.write("0123456789")
data.flush()
data.seek(4)
gone = open("/tmp/gone", "w")
gone.write("x")
gone.flush()
os.unlink("/tmp/gone")
ends = os.pipe()
def bound(family, kind, address):
    one = socket.socket(family, kind)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(address)
    return one
listener = bound(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 7001))
listener.listen(5)
client = socket.create_connection(("127.0.0.1", 7001))
server, _ = listener.accept()
client.send(b"unread")
waiting = socket.create_connection(("127.0.0.1", 7001))
datagrams = bound(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 7002))
six = bound(socket.AF_INET6, socket.SOCK_STREAM, ("::1", 7003))
six.listen(9)
local = bound(socket.AF_UNIX, socket.SOCK_STREAM, "/tmp/socket")
local.listen(3)
abstract = bound(socket.AF_UNIX, socket.SOCK_DGRAM, "\0abstract")
touched = bytearray(b"x" * (32 << 20))
open("/tmp/ready", "w").close()
time.sleep(1000)
PY
# It complains where only the first version of control groups is mounted.
ss() { command ss "$@" 2>/dev/null; }
mkdir -p work
(cd work; exec /usr/bin/python3 /tmp/subject.py </dev/null >/tmp/log 2>&1) &
pid=$!
# What the shell says of its end is not to be seen.
disown $pid
wait_for subject test -e ready
ports=$(ss -Htn state established dport = 7001 | tr -s ' ' | cut -d ' ' -f 3 | cut -d : -f 2)
# Hides what is never the same: the process id after `pid=` or alone, ports that nobody has asked for, columns.
hide() { sed "s/pid=$pid\b/pid=PID/g; s/^$pid\(\$\|:\)/PID\1/; s/ *$//; $(for port in $ports; do printf 's/:%s\\b/:PORT/g; ' "$port"; done)"; }

echo '== lsof'
lsof -nP -p $pid -a -d cwd,rtd,txt,0-99 -F ftan | sed 1d | hide | paste -sd ' ' | sed 's/ f/\nf/g; s/ type=/ type=/'
lsof -nP -p $pid -a -d mem -F n | sed -n 's/^n//p' | grep -o 'libc[.]so[.]6\|ld-linux-x86-64[.]so[.]2' | sort
lsof -t /tmp/data | hide
lsof -nP -a -p $pid +L1 -F fn | sed 1d | paste -sd ' '
lsof -nP -iTCP -sTCP:LISTEN -a -p $pid -F n | grep ^n
lsof -nP -iTCP:7001 -a -p $pid -F TST | grep -c TST=
lsof -nP -p $pid -o -a -d 3 -F o | grep ^o
lsof -nP -U -a -p $pid -F n | grep ^n
lsof +d /tmp -F n 2>/dev/null | grep '^n/tmp/[a-z]*$' | sort -u
lsof -p 4194304 || echo "nobody: $?"

echo '== ss'
ss -Htlnp | tr -s ' ' | hide | sort
ss -Htnp state established | tr -s ' ' | hide | sort
ss -Hulnp | tr -s ' ' | hide | sort
ss -Hxlp src /tmp/socket | tr -s ' ' | sed 's/ [0-9]* \* 0 / INODE * 0 /' | hide
ss -Hxap | grep -c "@abstract.*pid=$pid"
ss -Htlne sport = 7001 | grep -o 'uid:[0-9]*\|ino:\|sk:' | paste -sd ' '
ss -Htni dport = 7001 | grep -o 'mss:\|rtt:\|cwnd:\|cubic' | sort -u | paste -sd ' '
ss -Htnm sport = 7001 state established | grep -o 'skmem:(r[0-9]*,rb' | sed 's/r[1-9][0-9]*/rSOME/; s/r0/rNONE/' | sort
ss -Htan 'sport = :7001 and dst 127.0.0.1' | wc -l
ss -Htln '( sport < :7000 or sport >= :7003 )' | wc -l
ss -s | grep -c '^\(TCP\|UDP\|RAW\|INET\|Total\|FRAG\)'

echo '== ip'
unshare -Urn sh -c '
    ip -o link show lo | tr -s " " | cut -d " " -f 2-5,8-9
    ip link set lo up
    ip addr add 10.9.0.1/24 dev lo
    ip addr add 10.9.0.1/24 dev lo 2>/dev/null || echo there already
    ip -6 addr add fd00::9/64 dev lo nodad
    ip -o addr show dev lo | tr -s " " | cut -d " " -f 2-6
    ip route get 10.9.0.1 | head -n 1 | sed "s/ uid.*//; s/ *$//"
    ip -o route show table local | sort | head -n 20
    ip addr del 10.9.0.1/24 dev lo
    ip -4 -o addr show | wc -l
    ip route get 198.51.100.1 2>&1
    ip link set lo mtu 1400; ip -o link show lo | cut -d " " -f 4-5
    ip link show none 2>&1
    ip -s link show lo | grep -c bytes
    ip -j addr show lo | python3 -c "import json, sys; print(sorted(a[\"local\"] for a in json.load(sys.stdin)[0][\"addr_info\"]))"
    ip link set lo down; ip -br link show lo | tr -s " " | cut -d " " -f 1-3; ip neigh; ip rule 2>/dev/null | wc -l' | sed 's/@NONE//'

echo '== processes'
ps -o comm=,args=,stat=,nlwp=,ni=,tty=,ppid= -p $pid | tr -s ' ' | sed "s/ $$\$/ SHELL/"
ps -o rss=,vsz= -p $pid | { read -r rss vsz; [ "$rss" -gt 32768 ] && [ "$vsz" -ge "$rss" ] && echo sizes; }
top -b -n 1 -p $pid | tail -n 1 | tr -s ' ' | sed 's/^ //' | cut -d ' ' -f 3,4,12
top -b -n 1 | grep -c '^\(Tasks\|%Cpu\|MiB Mem\|MiB Swap\)'
pmap -x $pid | grep -c '\[ stack \]\|libc.so.6' | sed 's/^[2-9]$/maps/'
pmap -x $pid | awk '$1 == "total" && $4 > 32768 { print "total" }'
pwdx $pid | hide
free -b | awk '$1 == "Mem:" { print ($2 > 0 && $3 > 33554432 && $3 + $7 <= $2 * 1.1) ? "memory" : $0 }'
uptime | grep -c 'load average'
vmstat | wc -l
pgrep -x python3 | hide
pidof python3 | tr ' ' '\n' | grep -x $pid | hide

echo '== htop'
export TERM=screen-256color
t() { timeout 60 tmux -S /tmp/tmux -f /dev/null "$@"; }
sees() { t capture-pane -p -t main | grep -qF -- "$1"; }
t new-session -d -s main -x 120 -y 30 "htop -d 5 -p $pid"
wait_for htop sees 'Load average:'
wait_for tasks sees 'Tasks:'
wait_for row sees 'python3 /tmp/subject.py'
t send-keys -t main F9
wait_for 'list of signals' sees SIGTERM
t send-keys -t main 15 Enter
wait_for 'the end of the subject' sh -c "! readlink /proc/$pid/exe"
t send-keys -t main q
wait_for 'the end of htop' sh -c '! pgrep -x htop'
t kill-server 2>/dev/null
lsof -p $pid >/dev/null 2>&1 || echo gone
