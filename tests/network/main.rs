//! The sandbox's network, from another network namespace: every case gives the same under runc and on
//! each platform.

#[cfg(test)]
mod load;
#[cfg(test)]
mod runtime;

#[cfg(test)]
mod tests {
    use std::process::Command;

    use test_harness::wire::Wire;
    use test_harness::{Cmd, Platform};

    use crate::runtime::{Runtime, each_runtime};

    const INSIDE: &str = include_str!("inside.py");
    const OUTSIDE: &str = include_str!("outside.py");
    const CLIENT: &str = include_str!("client.py");
    const SILENCE: &str = include_str!("silence.py");

    /// What comes back outside from the servers inside.
    const ECHO: &str = "import socket, threading\n\
        def serve(c):\n\
        \x20   while data := c.recv(65536): c.sendall(data)\n\
        \x20   c.close()\n\
        l = socket.create_server(('::', 8000), family=socket.AF_INET6, dualstack_ipv6=True)\n\
        print('ready', flush=True)\n\
        while True: threading.Thread(target=serve, args=(l.accept()[0],), daemon=True).start()\n";

    /// Four connections, of which the first says when there is no server any more.
    const SILENT: &str = "import socket, subprocess\n\
        l = socket.create_server(('10.87.0.1', 8000))\n\
        print('ready', flush=True)\n\
        held = [l.accept()[0] for _ in range(4)]\n\
        held[0].sendall(held[0].recv(1))\n\
        while held[3].recv(65536): pass\n\
        held[3].close()\n\
        held[0].sendall(held[0].recv(9)[:2])\n\
        subprocess.run('ip addr del 10.87.0.1/24 dev out0'.split(), check=True)\n\
        held[0].recv(1)\n";

    /// A resolver that says the question backwards.
    const RESOLVER: &str = "import socket\n\
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
        s.bind(('127.0.0.11', 53))\n\
        print('ready', flush=True)\n\
        while True:\n\
        \x20   data, peer = s.recvfrom(1000)\n\
        \x20   s.sendto(data[:2] + data[:1:-1], peer)\n";

    fn from_outside(wire: &Wire, runtime: Runtime, what: &str) -> String {
        let _container = runtime.container(wire, &["python3", "-c", INSIDE]);
        wire.outside(&["python3", "-c", OUTSIDE, what, wire.v4(), wire.v6()])
    }

    #[test]
    fn servers_inside_serve_the_outside() {
        each_runtime(|wire, runtime| from_outside(wire, runtime, "basics"));
    }

    #[test]
    fn ten_thousand_connections_are_held_at_once() {
        let n = std::env::var("NETWORK_CONNECTIONS").unwrap_or("10000".into());
        each_runtime(|wire, runtime| from_outside(wire, runtime, &n));
    }

    #[test]
    fn what_is_lost_is_sent_again() {
        each_runtime(|wire, runtime| {
            // Not every kernel can lose packets on purpose.
            let loses = wire.ask_outside(&[
                "tc", "qdisc", "add", "dev", "out0", "root", "netem", "loss", "2%", "delay", "1ms",
            ]);
            let lines = from_outside(wire, runtime, "loss");
            format!("{} {lines}", loses.is_ok())
        });
    }

    #[test]
    fn programs_inside_reach_the_outside() {
        each_runtime(|wire, runtime| {
            let _server = wire.server_outside(&["python3", "-c", ECHO]);
            let _resolver = wire.server_inside(&["python3", "-c", RESOLVER]);
            let args = ["python3", "-c", CLIENT, "10.87.0.1", "fd87::1", "10.87.0.99"];
            runtime.run(wire, &args)
        });
    }

    #[test]
    fn silent_peers_are_given_up() {
        each_runtime(|wire, runtime| {
            let _server = wire.server_outside(&["python3", "-c", SILENT]);
            // Whatever is silent, it is where it was.
            let link = wire.outside(&["ip", "-br", "link", "show", "out0"]);
            let mac = link.split_whitespace().nth(2).unwrap();
            let script = format!(
                "ip neigh replace 10.87.0.1 lladdr {mac} dev eth9 nud permanent && echo ready"
            );
            drop(wire.server_inside(&["sh", "-c", &script]));
            runtime.run(wire, &["python3", "-c", SILENCE, "10.87.0.1"])
        });
    }

    #[test]
    fn echoes_are_answered() {
        each_runtime(|wire, runtime| {
            let _container = runtime.container(wire, &["python3", "-c", INSIDE]);
            for addr in [wire.v4(), wire.v6()] {
                for size in ["0", "56", "4000"] {
                    let _ = wire.outside(&["ping", "-c2", "-i0.2", "-w30", "-s", size, addr]);
                }
            }
            String::new()
        });
    }

    #[test]
    fn host_network_is_left_alone() {
        let own = || {
            let output = Command::new("ip").args(["-o", "addr"]).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let before = own();
        let wire = Wire::new();
        let program = Cmd::new(["python3", "-c", "import socket; print(1)"]);
        let lines = Runtime::Runsc(Platform::Systrap).run_shared(&wire, &program);
        assert_eq!((lines.as_str(), own() == before), ("1\n", true));
    }
}
