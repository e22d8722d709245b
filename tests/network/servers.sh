# iperf3, as many as the argument says, of which each serves one client; redis; and nginx, with kept connections and without.
set -eu
cd /tmp
mkdir -p www logs tmp
head -c 1000000 /dev/zero >www/large
echo welcome >www/index.html
cat >nginx.conf <<'END'
worker_processes 2;
user root;
pid /tmp/nginx.pid;
error_log /tmp/logs/error.log warn;
events { worker_connections 1000; }
http {
    client_body_temp_path /tmp/tmp/body;
    proxy_temp_path /tmp/tmp/proxy;
    fastcgi_temp_path /tmp/tmp/fastcgi;
    uwsgi_temp_path /tmp/tmp/uwsgi;
    scgi_temp_path /tmp/tmp/scgi;
    access_log off;
    sendfile on;
    server { listen [::]:8080 ipv6only=off; root /tmp/www; keepalive_requests 1000000; }
    server { listen [::]:8081 ipv6only=off; root /tmp/www; keepalive_timeout 0; }
}
END
for n in $(seq "$1"); do iperf3 --server --one-off --port $((5200 + n)) >logs/iperf3.$n 2>&1 & done
redis-server --bind '*' '-::*' --protected-mode no --dir /tmp --save '' >logs/redis 2>&1 &
nginx -p /tmp -c /tmp/nginx.conf
listening() { grep -ciE ':(145[1-9A-F]|18EB|1F9[01]) .* 0A ' /proc/net/tcp6; }
until [ "$(listening)" = $(($1 + 3)) ]; do sleep 0.05; done
echo ready
wait
