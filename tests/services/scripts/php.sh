# The command line with processes and files, and the built-in server with workers.
cat >main.php <<'END'
<?php
$pids = [];
for ($i = 0; $i < 4; $i++) {
    $pid = pcntl_fork();
    if ($pid === 0) { exit($i * 10); }
    $pids[] = $pid;
}
foreach ($pids as $pid) { pcntl_waitpid($pid, $status); echo pcntl_wexitstatus($status), " "; }
echo "\n";
pcntl_async_signals(true);
pcntl_signal(SIGUSR1, function ($n) { echo "signal $n\n"; });
posix_kill(posix_getpid(), SIGUSR1);
$process = proc_open(['sort', '-n'], [['pipe', 'r'], ['pipe', 'w'], ['pipe', 'w']], $pipes);
fwrite($pipes[0], "3\n1\n2\n");
fclose($pipes[0]);
echo str_replace("\n", ",", stream_get_contents($pipes[1])), proc_close($process), "\n";
[$a, $b] = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
fwrite($a, "across\n");
echo fgets($b);
stream_set_blocking($b, false);
var_dump(fgets($b));
$server = stream_socket_server('tcp://127.0.0.1:0');
$client = stream_socket_client('tcp://' . stream_socket_get_name($server, false));
$peer = stream_socket_accept($server);
fwrite($client, str_repeat('x', 300000) . "\n");
$total = 0;
stream_set_blocking($peer, false);
while ($total < 300001) {
    $read = [$peer]; $write = $except = null;
    stream_select($read, $write, $except, 60);
    $total += strlen(fread($peer, 65536));
}
echo "$total\n";
$file = fopen('locked', 'c+');
var_dump(flock($file, LOCK_EX));
if (pcntl_fork() === 0) { $other = fopen('locked', 'r'); var_dump(flock($other, LOCK_SH | LOCK_NB)); exit; }
pcntl_wait($status);
$memory = shm_attach(ftok('/tmp/locked', 'm'), 10000);
shm_put_var($memory, 1, 'shared');
if (pcntl_fork() === 0) { shm_put_var($memory, 2, shm_get_var($memory, 1) . ' back'); exit; }
pcntl_wait($status);
echo shm_get_var($memory, 2), "\n";
shm_remove($memory);
$queue = msg_get_queue(ftok('/tmp/locked', 'q'));
$mutex = sem_get(ftok('/tmp/locked', 's'), 1);
for ($i = 1; $i <= 4; $i++) {
    if (pcntl_fork() !== 0) { continue; }
    sem_acquire($mutex);
    $n = shm_attach(ftok('/tmp/locked', 'n'));
    $count = shm_has_var($n, 1) ? shm_get_var($n, 1) : 0;
    shm_put_var($n, 1, $count + $i);
    sem_release($mutex);
    msg_send($queue, $i, "from $i");
    exit;
}
for ($i = 4; $i >= 1; $i--) { msg_receive($queue, $i, $type, 100, $text); echo "$type $text, "; }
while (pcntl_wait($status) > 0);
$n = shm_attach(ftok('/tmp/locked', 'n'));
echo shm_get_var($n, 1), ' ', msg_stat_queue($queue)['msg_qnum'], "\n";
shm_remove($n); sem_remove($mutex); msg_remove_queue($queue);
echo shell_exec('echo $((1 + 1))');
foreach (new DirectoryIterator('/tmp') as $entry) { $names[] = $entry->getFilename(); }
echo in_array('main.php', $names) ? "listed\n" : "missing\n";
echo hash('sha256', str_repeat('a', 1000000)), "\n";
pcntl_signal(SIGALRM, function () { echo "alarm\n"; });
pcntl_alarm(1);
sleep(30);
END
php main.php
echo "exit $?"
mkdir -p site
cat >site/index.php <<'END'
<?php
session_save_path('/tmp'); session_start();
$_SESSION['n'] = ($_SESSION['n'] ?? 0) + 1;
echo $_SERVER['REQUEST_METHOD'], ' ', $_SESSION['n'], ' ', strlen(file_get_contents('php://input')), "\n";
END
head -c 500000 /dev/zero >site/zeros.bin
head -c 300000 /dev/zero >upload
PHP_CLI_SERVER_WORKERS=3 setsid php -S 127.0.0.1:8081 -t site >php.log 2>&1 &
server=$!
wait_for 'php -S' curl -s http://127.0.0.1:8081/
for i in 1 2 3; do curl -s -b jar -c jar http://127.0.0.1:8081/; done
curl -s --data-binary @upload -H 'Expect:' http://127.0.0.1:8081/
curl -s http://127.0.0.1:8081/zeros.bin | wc -c
seq 30 | xargs -P 6 -I{} curl -s --max-time 100 http://127.0.0.1:8081/ | sort | uniq -c
{ kill -KILL -- -$server; wait $server; } 2>/dev/null
echo "server ended with $?"
