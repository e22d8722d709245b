# What is measured over the network: iperf3, redis, nginx and the guest program.
set -eu
cd /tmp
mkdir -p www logs tmp
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
    server { listen [::]:8080 ipv6only=off; root /tmp/www; keepalive_requests 1000000; }
}
END
iperf3 --server >logs/iperf3 2>&1 &
redis-server --bind '*' --protected-mode no --dir /tmp --save '' >logs/redis 2>&1 &
nginx -p /tmp -c /tmp/nginx.conf
/tmp/bench-guest answer 7010 &
echo ready
wait
