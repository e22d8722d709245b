# java: the compiler, threads, selectors and mapped files, an HTTP server and its client, child processes.
set -e
mkdir java
cd java
cat >Main.java <<'END'
import java.io.*;
import java.net.*;
import java.net.http.*;
import java.nio.*;
import java.nio.channels.*;
import java.nio.file.*;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;
import java.util.stream.*;
import com.sun.net.httpserver.HttpServer;

public class Main {
    static int fib(int n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }

    static void threads() throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(16);
        List<Future<Integer>> futures = new ArrayList<>();
        for (int i = 0; i < 64; i++) { int n = i % 20; futures.add(pool.submit(() -> fib(n))); }
        int sum = 0;
        for (Future<Integer> f : futures) sum += f.get();
        pool.shutdown();
        System.out.println("pool " + sum + " " + pool.awaitTermination(100, TimeUnit.SECONDS));
        Thread[] ts = new Thread[200];
        AtomicLong total = new AtomicLong();
        CountDownLatch go = new CountDownLatch(1);
        for (int i = 0; i < ts.length; i++) { int n = i; ts[i] = new Thread(() -> { try { go.await(); } catch (InterruptedException e) { } total.addAndGet(n); }); ts[i].start(); }
        go.countDown();
        for (Thread t : ts) t.join();
        System.out.println("threads " + total);
        Object lock = new Object(); int[] turn = {0};
        Thread[] ring = new Thread[3];
        for (int i = 0; i < 3; i++) { int me = i; ring[i] = new Thread(() -> { for (int k = 0; k < 100; k++) synchronized (lock) { while (turn[0] % 3 != me) try { lock.wait(); } catch (InterruptedException e) { } turn[0]++; lock.notifyAll(); } }); ring[i].start(); }
        for (Thread t : ring) t.join();
        System.out.println("ring " + turn[0]);
        Thread sleeper = new Thread(() -> { try { Thread.sleep(100000); } catch (InterruptedException e) { System.out.println("interrupted"); } });
        sleeper.start(); sleeper.interrupt(); sleeper.join();
        System.out.println("parallel " + IntStream.range(0, 100000).parallel().mapToLong(i -> i * 3L % 7).sum());
    }

    static void nio() throws Exception {
        Selector selector = Selector.open();
        ServerSocketChannel server = ServerSocketChannel.open();
        server.bind(new InetSocketAddress("127.0.0.1", 0)); server.configureBlocking(false);
        server.register(selector, SelectionKey.OP_ACCEPT);
        int port = ((InetSocketAddress) server.getLocalAddress()).getPort();
        Thread loop = new Thread(() -> { try {
            ByteBuffer buffer = ByteBuffer.allocateDirect(65536);
            while (selector.isOpen()) { selector.select(); if (!selector.isOpen()) break;
                for (Iterator<SelectionKey> it = selector.selectedKeys().iterator(); it.hasNext();) { SelectionKey key = it.next(); it.remove();
                    if (key.isAcceptable()) { SocketChannel c = server.accept(); c.configureBlocking(false); c.register(selector, SelectionKey.OP_READ); }
                    else { SocketChannel c = (SocketChannel) key.channel(); buffer.clear(); if (c.read(buffer) < 0) { c.close(); continue; } buffer.flip(); while (buffer.hasRemaining()) c.write(buffer); } } }
        } catch (ClosedSelectorException | ConcurrentModificationException e) { } catch (IOException e) { System.out.println(e); } });
        loop.start();
        ExecutorService pool = Executors.newCachedThreadPool(); List<Future<Integer>> all = new ArrayList<>();
        for (int i = 0; i < 20; i++) all.add(pool.submit(() -> { try (Socket s = new Socket("127.0.0.1", port)) { byte[] data = new byte[5000]; Arrays.fill(data, (byte) 7); int n = 0;
            for (int k = 0; k < 5; k++) { s.getOutputStream().write(data); byte[] back = s.getInputStream().readNBytes(data.length); n += Arrays.equals(data, back) ? 1 : 0; } return n; } }));
        int good = 0; for (Future<Integer> f : all) good += f.get();
        pool.shutdown(); selector.close(); server.close(); loop.join();
        System.out.println("nio " + good);
        Path file = Path.of("data.bin");
        try (FileChannel c = FileChannel.open(file, StandardOpenOption.CREATE, StandardOpenOption.READ, StandardOpenOption.WRITE)) {
            MappedByteBuffer map = c.map(FileChannel.MapMode.READ_WRITE, 0, 1 << 20);
            for (int i = 0; i < 1 << 20; i++) map.put(i, (byte) (i * 31));
            map.force(); ByteBuffer b = ByteBuffer.allocate(16); c.read(b, 4096); System.out.println("mapped " + Arrays.toString(b.array()) + " " + c.size());
            try (FileLock l = c.lock()) { System.out.println("lock " + l.isValid()); }
        }
        Pipe pipe = Pipe.open(); pipe.sink().write(ByteBuffer.wrap("pipe".getBytes())); ByteBuffer b = ByteBuffer.allocate(10); System.out.println("pipe " + pipe.source().read(b));
        Files.createDirectories(Path.of("d/e/f")); for (int i = 0; i < 50; i++) Files.writeString(Path.of("d/e/f/" + i), "n" + i);
        try (Stream<Path> walk = Files.walk(Path.of("d"))) { System.out.println("walk " + walk.count()); }
        WatchService watch = FileSystems.getDefault().newWatchService(); Path.of("d").register(watch, StandardWatchEventKinds.ENTRY_CREATE); Files.createFile(Path.of("d/new"));
        System.out.println("watch " + watch.poll(100, TimeUnit.SECONDS).pollEvents().get(0).context());
        try (SocketChannel never = SocketChannel.open()) { never.connect(new InetSocketAddress("127.0.0.1", port)); } catch (ConnectException e) { System.out.println("refused"); }
    }

    static void http() throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
        server.setExecutor(Executors.newFixedThreadPool(4, r -> { Thread t = new Thread(r); t.setDaemon(true); return t; }));
        server.createContext("/", x -> { byte[] in = x.getRequestBody().readAllBytes(); byte[] out = ("hello " + x.getRequestURI() + " " + in.length).getBytes(); x.sendResponseHeaders(200, out.length); x.getResponseBody().write(out); x.close(); });
        server.start();
        HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        URI base = URI.create("http://127.0.0.1:" + server.getAddress().getPort() + "/");
        System.out.println(client.send(HttpRequest.newBuilder(base.resolve("post")).POST(HttpRequest.BodyPublishers.ofByteArray(new byte[100000])).build(), HttpResponse.BodyHandlers.ofString()).body());
        List<CompletableFuture<String>> all = new ArrayList<>();
        for (int i = 0; i < 60; i++) all.add(client.sendAsync(HttpRequest.newBuilder(base.resolve("n" + i % 6)).build(), HttpResponse.BodyHandlers.ofString()).thenApply(HttpResponse::body));
        TreeMap<String, Integer> counts = new TreeMap<>(); for (CompletableFuture<String> f : all) counts.merge(f.get(), 1, Integer::sum);
        System.out.println(counts); server.stop(0);
    }

    static void processes() throws Exception {
        for (int i = 0; i < 3; i++) { Process p = new ProcessBuilder("sh", "-c", "cat; exit " + i).redirectErrorStream(true).start(); p.getOutputStream().write(("in" + i).getBytes()); p.getOutputStream().close();
            System.out.println(new String(p.getInputStream().readAllBytes()) + " " + p.waitFor()); }
        Process p = new ProcessBuilder("sleep", "100").start(); p.destroy(); System.out.println("destroyed " + p.waitFor());
        try { new ProcessBuilder("/none").start(); } catch (IOException e) { System.out.println(e.getMessage()); }
    }

    public static void main(String[] args) throws Exception {
        System.out.println(Runtime.getRuntime().availableProcessors() > 0);
        threads(); nio(); http(); processes();
        try { Object o = null; o.hashCode(); } catch (NullPointerException e) { System.out.println("null"); }
        try { recurse(0); } catch (StackOverflowError e) { System.out.println("overflow"); }
        long live = 0; for (int i = 0; i < 2000; i++) { byte[][] junk = new byte[10][10000]; live += junk[i % 10].length; } System.gc(); System.out.println("garbage " + live);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> System.out.println("hook")));
        System.exit(7);
    }
    static int recurse(int n) { return recurse(n + 1) + 1; }
}
END
javac -J-XX:TieredStopAtLevel=1 Main.java
ls *.class | wc -l
status=0
java Main || status=$?
echo "exit $status"
