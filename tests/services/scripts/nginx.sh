# A server with two workers: curl with HTTP, TLS, ranges and uploads, a proxy, reload under load, and wrk.
mkdir -p www logs tmp
seq 100000 >www/numbers
head -c 3000000 /dev/zero | tr '\0' 'z' >www/large
echo welcome >www/index.html
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out cert.pem \
    -days 30 -subj /CN=localhost -addext 'subjectAltName = DNS:localhost' 2>/dev/null
cat >nginx.conf <<'END'
worker_processes 2;
user root;
pid /tmp/nginx.pid;
error_log /tmp/logs/error.log warn;
events { worker_connections 200; }
http {
    include /etc/nginx/mime.types;
    client_body_temp_path /tmp/tmp/body;
    proxy_temp_path /tmp/tmp/proxy;
    fastcgi_temp_path /tmp/tmp/fastcgi;
    uwsgi_temp_path /tmp/tmp/uwsgi;
    scgi_temp_path /tmp/tmp/scgi;
    access_log /tmp/logs/access.log;
    sendfile on;
    client_max_body_size 10m;
    tcp_nopush on;
    open_file_cache max=20;
    upstream backend { server unix:/tmp/backend; keepalive 4; }
    server {
        listen 127.0.0.1:8080;
        listen [::1]:8080;
        listen 127.0.0.1:8443 ssl http2;
        ssl_certificate /tmp/cert.pem;
        ssl_certificate_key /tmp/key.pem;
        root /tmp/www;
        gzip on;
        gzip_types application/octet-stream;
        location / { add_header X-Version VERSION; }
        location /up { proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection ""; }
        location /teapot { return 418 "short and stout\n"; }
    }
    server {
        listen unix:/tmp/backend;
        location / { return 200 "backend $request_method $content_length\n"; }
    }
}
END
nginx -e logs/error.log -p /tmp -c nginx.conf -t 2>&1 | sed 's/^nginx: //'
nginx -e logs/error.log -p /tmp -c nginx.conf -g 'daemon off;' &
server=$!
wait_for nginx curl -s http://127.0.0.1:8080/
get() { curl -sS --max-time 100 "$@"; }
get http://127.0.0.1:8080/
get -g 'http://[::1]:8080/'
get http://127.0.0.1:8080/teapot -w '%{http_code}\n'
get http://127.0.0.1:8080/missing -o /dev/null -w '%{http_code} %{content_type}\n'
get -r 100-119 http://127.0.0.1:8080/numbers | tr '\n' ' '; echo
get http://127.0.0.1:8080/large | cksum
get --compressed http://127.0.0.1:8080/numbers | cksum
get -I http://127.0.0.1:8080/numbers | tr -d '\r' | grep -E '^(HTTP|Content-|X-)'
get --cacert cert.pem --resolve localhost:8443:127.0.0.1 https://localhost:8443/large -o large -w '%{http_version} %{size_download}\n'
cmp large www/large
get -T www/large http://127.0.0.1:8080/up
get -d name=value http://127.0.0.1:8080/up
get http://127.0.0.1:8080/large http://127.0.0.1:8080/numbers http://127.0.0.1:8080/ -o one -o two -o three -w '%{num_connects}\n'
get --limit-rate 20M http://127.0.0.1:8080/large | wc -c
seq 40 | xargs -P 8 -I{} curl -s --max-time 100 http://127.0.0.1:8080/numbers -o 'got{}'
cat got* | wc -c

# A new configuration: the old workers finish what they have.
wrk -t 2 -c 8 -d 2s --timeout 60s http://127.0.0.1:8080/ >wrk 2>&1 &
load=$!
sed -i 's/VERSION/second/' nginx.conf
nginx -e logs/error.log -p /tmp -c nginx.conf -s reload
wait_for 'new configuration' sh -c 'curl -sI http://127.0.0.1:8080/ | grep -q "X-Version: second"'
wait $load
grep -c 'Requests/sec' wrk
grep -E 'Non-2xx' wrk

# A worker that dies is replaced. The old ones have to be gone before, lest one of them is chosen.
wait_for 'two workers' sh -c "[ \$(pgrep -c -P $server) = 2 ]"
worker=$(pgrep -P $server | head -1)
kill -KILL "$worker"
wait_for 'new worker' sh -c "! kill -0 $worker && [ \$(pgrep -c -P $server) -ge 2 ]"
get http://127.0.0.1:8080/
mv logs/access.log logs/old.log
kill -USR1 $server
wait_for 'new log' test -e logs/access.log
# A worker opens it somewhat later than the master.
marked() { get http://127.0.0.1:8080/numbers?marked -o /dev/null && grep -q marked logs/access.log; }
wait_for 'logged' marked
kill -QUIT $server
ended nginx $server
grep -E '\[(alert|crit|emerg)\]' logs/error.log | grep -v 'exited on signal 9'
true
