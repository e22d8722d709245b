# A server on loopback: commands, terminals, forwarding, copies, many sessions over one connection.
mkdir -p /run/sshd
chmod 755 /run/sshd /root /run
mkdir -m 700 keys
ssh-keygen -q -t ed25519 -N '' -f keys/host
ssh-keygen -q -t ed25519 -N '' -f keys/user
cp keys/user.pub keys/authorized
chmod 600 keys/authorized
cat >sshd_config <<'END'
Port 2222
ListenAddress 127.0.0.1
HostKey /tmp/keys/host
AuthorizedKeysFile /tmp/keys/authorized
PidFile /tmp/sshd.pid
UsePAM no
StrictModes no
PasswordAuthentication no
PermitRootLogin yes
PrintMotd no
PrintLastLog no
Subsystem sftp /usr/lib/openssh/sftp-server
AcceptEnv WORD
END
/usr/sbin/sshd -D -e -f sshd_config >sshd.log 2>&1 &
server=$!
echo "[127.0.0.1]:2222 $(cut -d' ' -f1,2 keys/host.pub)" >keys/known
cat >config <<'END'
Host box
    HostName 127.0.0.1
    Port 2222
    User root
    IdentityFile /tmp/keys/user
    UserKnownHostsFile /tmp/keys/known
    StrictHostKeyChecking yes
    ControlPath /tmp/keys/control
    LogLevel ERROR
    SendEnv WORD
END
s() { timeout 100 ssh -F config "$@"; }
wait_for sshd s box true
s box 'echo out; echo err >&2; exit 7' 2>errors
echo "exit $?"; cat errors
seq 100000 | s box 'cat | tail -1; echo $WORD'
WORD=passed s box 'echo $WORD'
head -c 3000000 /dev/zero | s box 'wc -c'
s box 'kill -TERM $$'; echo "killed $?"

# A terminal: its size, its name, job control and Ctrl-C.
cat >terminal.py <<'END'
import fcntl, os, pty, select, signal, struct, subprocess, sys, termios, time
pid, fd = pty.fork()
if pid == 0:
    os.environ["TERM"] = "vt100"
    os.execvp("ssh", ["ssh", "-F", "config", "-tt", "box", "bash --norc --noprofile"])
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 31, 101, 0, 0))
seen = b""
def too_late(*_):
    print("too late, seen:", seen, subprocess.getoutput("ps -ef"))
    sys.exit(1)
signal.signal(signal.SIGALRM, too_late)
signal.alarm(150)
def expect(text, limit=100):
    global seen
    end = time.monotonic() + limit
    while text not in seen:
        if not select.select([fd], [], [], max(0, end - time.monotonic()))[0]:
            print("not seen:", text, "but", seen)
            sys.exit(1)
        try:
            data = os.read(fd, 4096)
        except OSError:
            data = b""
        if not data:
            print("ended, not seen:", text, "but", seen)
            sys.exit(1)
        seen += data
    seen = seen[seen.index(text) + len(text):]
def runs(name):
    while subprocess.call(["pgrep", "-x", name], stdout=subprocess.DEVNULL):
        time.sleep(0.05)
def send(text):
    os.write(fd, text)
# Without noflsh, Linux may drop what the shell writes while a signal character is flushing the output.
send(b"stty noflsh; PS1='prompt''> '\r")
expect(b"prompt> ")
send(b"tty | tr / _; [ -t 0 ] && echo is''tty\r")
expect(b"_dev_pts_")
expect(b"istty")
send(b"stty size\r")
expect(b"31 101")
expect(b"prompt> ")
# Not at the prompt: readline gets the size and sets it again, and what comes in between is lost.
send(b"echo lo''oping; while [ \"$(stty size)\" != '40 120' ]; do sleep 0.05; done; echo res''ized\r")
expect(b"looping")
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
os.kill(pid, signal.SIGWINCH)
expect(b"resized")
send(b"sleep 100\r")
runs("sleep")
send(b"\x03")
expect(b"prompt> ")
send(b"echo sta''tus $?\r")
expect(b"status 130")
send(b"cat\r")
expect(b"cat\r\n")
runs("cat")
send(b"line\r")
expect(b"line\r\nline\r\n")
send(b"\x1a")
expect(b"Stopped")
expect(b"prompt> ")
send(b"jobs\r")
expect(b"Stopped")
expect(b"prompt> ")
# Not by `bg; fg`: what `bg` continues reads, and may be stopped for it before `fg` hands it the terminal.
send(b"fg\r")
expect(b"fg\r\n")
expect(b"cat\r\n")
send(b"\x04")
expect(b"prompt> ")
send(b"sleep 100\r")
expect(b"sleep 100\r\n")
runs("sleep")
send(b"\x1a")
expect(b"Stopped")
expect(b"prompt> ")
send(b"bg\r")
expect(b"sleep 100 &\r\n")
expect(b"prompt> ")
send(b"kill %1; wait; echo jobs''=$(jobs -r)\r")
expect(b"jobs=\r\n")
expect(b"prompt> ")
send(b"printf 'a\\tb\\n' | cat -A; exit 9\r")
expect(b"a^Ib$")
while True:
    try:
        if not os.read(fd, 4096): break
    except OSError:
        break
print("terminal ok", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
END
python3 terminal.py

# One connection for many, forwarding, and copies.
s -M -N -f box </dev/null >/dev/null 2>&1
wait_for control s -O check box
for i in 1 2 3 4 5 6; do s box "echo session $i" & jobs="${jobs:-} $!"; done | sort
s -O exit box 2>/dev/null
s -N -L 127.0.0.1:2300:127.0.0.1:2222 -R /tmp/remote:127.0.0.1:2222 box &
forward=$!
wait_for forward python3 -c 'import socket; assert socket.create_connection(("127.0.0.1", 2300)).recv(4) == b"SSH-"'
wait_for forward python3 -c 'import socket; s = socket.socket(socket.AF_UNIX); s.connect("/tmp/remote"); assert s.recv(4) == b"SSH-"'
kill $forward
wait $forward 2>/dev/null
echo "forward ended with $?"
head -c 1500000 /dev/zero | tr '\0' 'q' >big
scp -q -F config big box:/tmp/copied && cmp big copied && echo scp
mkdir many; for i in $(seq 50); do echo $i >many/$i; done
rsync -a -e 'ssh -F config' many/ box:/tmp/synced/ && diff -r many synced && echo rsync
printf 'cd /tmp\nls many\nget many/7 got\nrm many/8\nmkdir made\n' | sftp -q -F config -b - box 2>&1 | grep -vc '^sftp>'
cat got; test -d made && test ! -e many/8 && echo sftp
kill -TERM $server
ended sshd $server
