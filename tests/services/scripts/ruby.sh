# Threads, processes, pipes, sockets, signals and a fiber scheduler's primitives.
cat >main.rb <<'END'
require "socket"
require "tempfile"
require "open3"
require "io/console"
$stdout.sync = true

queue = Queue.new
lock = Mutex.new
sum = 0
workers = 8.times.map { Thread.new { while (n = queue.pop) do lock.synchronize { sum += n } end } }
1000.times { |n| queue << n }
queue.close
workers.each(&:join)
puts "threads #{sum}"

begin
  Thread.new { Thread.current.report_on_exception = false; raise "inside" }.join
rescue => error
  puts "raised #{error.message}"
end
require "timeout"
begin
  Timeout.timeout(0.05) { sleep 60 }
rescue Timeout::Error
  puts "timeout"
end

pids = 5.times.map { |i| fork { exit i } }
puts pids.map { |pid| Process.wait2(pid)[1].exitstatus }.inspect
reader, writer = IO.pipe
pid = fork { reader.close; 1000.times { |i| writer.puts i }; writer.close; exit! 3 }
writer.close
puts reader.each_line.sum(&:to_i), Process.wait2(pid)[1].exitstatus
out, err, status = Open3.capture3("sh", "-c", "cat; echo oops >&2; exit 4", stdin_data: "given")
p out, err, status.exitstatus
puts `echo sub $((6 * 7))`
puts IO.popen(["tr", "a-z", "A-Z"], "r+") { |io| io.write "shout"; io.close_write; io.read }
spawned = Process.spawn({ "NAME" => "value" }, "echo $NAME >&7", 7 => $stdout)
Process.wait spawned

got = Queue.new
trap("USR1") { got << :usr1 } rescue nil
trap("CHLD") { got << :chld }
Process.kill("USR1", Process.pid)
puts got.pop
child = fork { sleep 60 }
Process.kill("TERM", child)
puts Process.wait2(child)[1].termsig, got.pop
trap("CHLD", "DEFAULT")

server = TCPServer.new("127.0.0.1", 0)
port = server.addr[1]
serving = Thread.new do
  loop { Thread.new(server.accept) { |c| while (line = c.gets) do c.puts line.reverse.strip end; c.close } }
end
answers = 20.times.map { |i| Thread.new { TCPSocket.open("127.0.0.1", port) { |s| s.puts "ab#{i}"; s.gets.strip } } }
puts answers.map(&:value).sort.join(",")
serving.kill
UNIXServer.open("/tmp/ruby.sock") do |unix|
  pid = fork { UNIXSocket.open("/tmp/ruby.sock") { |s| s.send_io($stdin); s.write "bye" } }
  peer = unix.accept
  puts peer.recv_io.class, peer.read, peer.getpeereid.inspect
  Process.wait pid
end
a = UDPSocket.new
a.bind("127.0.0.1", 0)
UDPSocket.new.send("datagram", 0, "127.0.0.1", a.addr[1])
puts a.recvfrom(100)[0]
left, right = Socket.pair(:UNIX, :SEQPACKET)
left.send("packet", 0)
puts right.recv(3), (right.read_nonblock(1) rescue $!.class)

Tempfile.create("x") do |file|
  file.flock(File::LOCK_EX)
  puts File.open(file.path) { |other| other.flock(File::LOCK_SH | File::LOCK_NB) }.inspect
  file.write("0123456789")
  file.flush
  puts IO.pread(IO.sysopen(file.path), 3, 4) rescue puts File.open(file.path) { |f| f.pread(3, 4) }
end
Dir.mkdir("d")
100.times { |i| File.write("d/#{i}", "x" * i) }
puts Dir.glob("d/*").sum { |f| File.size(f) }
r = Ractor.new { Ractor.receive * 2 } rescue nil
puts r.send(21).take if r
ObjectSpace.each_object(Class).count
GC.start
puts GC.count > 0, Process.clock_gettime(Process::CLOCK_MONOTONIC) > 0
END
ruby -W0 main.rb </dev/null
echo "exit $?"
{ ruby -e 'at_exit { puts "last" }; Process.kill(:TERM, $$); sleep'; } 2>/dev/null
echo "exit $?"
ruby -e 'Process.daemon(true, true); File.write("daemon", "ok")'
wait_for daemon grep -q ok daemon
cat daemon; echo
