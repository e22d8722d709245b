# go: a build, many goroutines and threads, preemption by signals, an HTTP server and its clients, `go test`.
set -e
export HOME=/tmp
export GOCACHE=/tmp/gocache GOPATH=/tmp/gopath GOFLAGS=-mod=mod GOTOOLCHAIN=local GOPROXY=off GO111MODULE=on
mkdir -p go/sum
cd go
cat >go.mod <<'END'
module example.org/g

go 1.19
END
cat >sum/sum.go <<'END'
package sum

func Sum(xs []int) (s int) {
	for _, x := range xs {
		s += x
	}
	return
}
END
cat >sum/sum_test.go <<'END'
package sum

import (
	"sync"
	"testing"
)

func TestSum(t *testing.T) {
	if Sum([]int{1, 2, 3}) != 6 {
		t.Fatal("wrong")
	}
}

func TestParallel(t *testing.T) {
	var wg sync.WaitGroup
	for i := 0; i < 50; i++ {
		wg.Add(1)
		go func() { defer wg.Done(); Sum(make([]int, 10000)) }()
	}
	wg.Wait()
}
END
cat >main.go <<'END'
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"example.org/g/sum"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func spin(stop *int32) (n int) {
	for atomic.LoadInt32(stop) == 0 {
		n++
	}
	return
}

func main() {
	fmt.Println("sum", sum.Sum([]int{1, 2, 3}))
	ch := make(chan int)
	var wg sync.WaitGroup
	for i := 0; i < 1000; i++ {
		wg.Add(1)
		go func(i int) { defer wg.Done(); ch <- i }(i)
	}
	go func() { wg.Wait(); close(ch) }()
	total := 0
	for v := range ch {
		total += v
	}
	fmt.Println("goroutines", total)
	// Loops without calls are preempted by signals.
	var stop int32
	for i := 0; i < 4; i++ {
		wg.Add(1)
		go func() { defer wg.Done(); x := 1; for k := 0; k < 30000000; k++ { x = x*7 + k }; _ = x }()
	}
	for i := 0; i < 2; i++ {
		wg.Add(1)
		go func() { defer wg.Done(); spin(&stop) }()
	}
	for i := 0; i < 5; i++ {
		runtime.GC()
	}
	time.Sleep(20 * time.Millisecond)
	atomic.StoreInt32(&stop, 1)
	wg.Wait()
	fmt.Println("preempted")
	// Threads: locked goroutines that block in system calls.
	r, w, err := os.Pipe()
	must(err)
	for i := 0; i < 50; i++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			runtime.LockOSThread()
			var b [1]byte
			syscall.Read(int(r.Fd()), b[:])
		}()
	}
	w.Write(make([]byte, 50))
	wg.Wait()
	fmt.Println("threads")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		b, _ := io.ReadAll(q.Body)
		fmt.Fprintf(w, "%s %d", q.URL.Path, len(b))
	})}
	go srv.Serve(l)
	url := "http://" + l.Addr().String()
	var ok int32
	for i := 0; i < 100; i++ {
		wg.Add(1)
		go func(i int) {
			defer wg.Done()
			resp, err := http.Post(fmt.Sprintf("%s/%d", url, i), "text/plain", strings.NewReader(strings.Repeat("x", i*100)))
			must(err)
			b, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if string(b) == fmt.Sprintf("/%d %d", i, i*100) {
				atomic.AddInt32(&ok, 1)
			}
		}(i)
	}
	wg.Wait()
	fmt.Println("http", ok)
	srv.Close()
	u, err := net.ListenUnix("unix", &net.UnixAddr{Name: "/tmp/go.sock", Net: "unix"})
	must(err)
	go func() { c, _ := u.Accept(); io.Copy(c, c); c.Close() }()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: "/tmp/go.sock", Net: "unix"})
	must(err)
	go func() { c.Write(make([]byte, 1<<20)); c.CloseWrite() }()
	n, _ := io.Copy(io.Discard, c)
	fmt.Println("unix", n)
	_, err = net.DialTimeout("tcp", l.Addr().String(), time.Minute)
	fmt.Println("refused", strings.HasSuffix(err.Error(), "connection refused"))
	c2, err := net.ListenPacket("udp", "127.0.0.1:0")
	must(err)
	c2.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	_, _, err = c2.ReadFrom(make([]byte, 10))
	fmt.Println("deadline", os.IsTimeout(err))
	out, err := exec.Command("sh", "-c", "cat; exit 3").CombinedOutput()
	fmt.Println(string(out), err)
	cmd := exec.Command("sleep", "100")
	must(cmd.Start())
	cmd.Process.Kill()
	fmt.Println(cmd.Wait())
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, syscall.SIGHUP)
	syscall.Kill(os.Getpid(), syscall.SIGHUP)
	fmt.Println(<-sig)
	func() {
		defer func() { fmt.Println(recover()) }()
		var p *int
		fmt.Println(*p)
	}()
	t := time.NewTicker(time.Millisecond)
	for i := 0; i < 10; i++ {
		<-t.C
	}
	fmt.Println("ticks")
	os.Exit(5)
}
END
go build -o g .
status=0
./g || status=$?
echo "exit $status"
go test -vet=off ./... | sed 's/[0-9.]*s$//; s/(cached)//'
go test -vet=off -run Sum -v ./sum | sed 's/[0-9.]*s)*$//'
