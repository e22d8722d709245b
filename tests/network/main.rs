//! The sandbox's network, from another network namespace: every case gives the same under runc and on
//! each platform.

#[cfg(test)]
mod load;
#[cfg(test)]
mod runtime;

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _};
    use std::net::{Shutdown, TcpStream};
    use std::os::unix::net::UnixListener;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use test_harness::wire::Wire;
    use test_harness::{Cmd, Platform, TempDir};

    use crate::runtime::{Runtime, each_runtime};

    const INSIDE: &str = include_str!("inside.py");
    const OUTSIDE: &str = include_str!("outside.py");
    const CLIENT: &str = include_str!("client.py");
    const SILENCE: &str = include_str!("silence.py");
    const DOORS: &str = include_str!("doors.py");
    const VISITOR: &str = include_str!("visitor.py");
    const HOARDER: &str = include_str!("hoarder.py");

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

    /// Calls until it is so.
    #[track_caller]
    fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
        let limit = Instant::now() + Duration::from_secs(60);
        while !is_so() {
            assert!(Instant::now() < limit, "{what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn each_platform(case: impl Fn(&Wire, Runtime)) {
        for platform in [Platform::Systrap, Platform::Ptrace] {
            if platform.is_wanted() {
                case(&Wire::new(), Runtime::Runsc(platform));
            }
        }
    }

    #[test]
    fn loopback_addresses_of_the_namespace_lead_into_the_container() {
        each_runtime(|wire, runtime| {
            let _container = runtime.container(wire, &["python3", "-c", DOORS]);
            wire.ask_inside(&["python3", "-c", VISITOR]).unwrap()
        });
    }

    /// What the container makes the host listen at has a limit, and serves again afterwards.
    #[test]
    fn a_guest_that_listens_everywhere_gets_its_share() {
        each_platform(|wire, runtime| {
            let container = runtime.container(wire, &["python3", "-c", HOARDER]);
            let listening = || -> Vec<String> {
                let text = wire.ask_inside(&["ss", "-Hltn"]).unwrap();
                let addr = |line: &str| line.split_whitespace().nth(3).map(str::to_owned);
                text.lines().filter_map(addr).collect()
            };
            eventually("the host listens", || listening().len() == 256);
            assert!(listening().iter().all(|addr| addr.starts_with("127.0.0.1:20")));
            wire.ask_inside(&["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/20000"]).unwrap();
            eventually("others have their turn", || {
                listening().len() == 256 && listening().contains(&"127.0.0.1:20400".to_owned())
            });
            // Whoever is to answer has not suffered.
            let alive = container.command(&["exec", "c", "true"]).status().unwrap();
            assert!(alive.success());
        });
    }

    fn talk(mut stream: impl std::io::Read + std::io::Write, end: impl FnOnce()) {
        stream.write_all(&[7; 100_000]).unwrap();
        end();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        assert!(back.len() == 100_000 && back.iter().all(|byte| *byte == 7), "{}", back.len());
    }

    #[test]
    fn port_forward_connects_the_host() {
        each_platform(|wire, runtime| {
            let container = runtime.container(wire, &["python3", "-c", DOORS]);
            let mut forwarder = container.command(&["port-forward", "c", "0:80"]);
            let mut forwarder = forwarder.stdout(Stdio::piped()).spawn().unwrap();
            let mut output = BufReader::new(forwarder.stdout.take().unwrap());
            let mut line = String::new();
            output.read_line(&mut line).unwrap();
            let port = line.split(' ').nth(3).and_then(|port| port.parse::<u16>().ok()).unwrap();
            assert_eq!(line, format!("Forwarding local port {port} to 80...\n"));
            for _ in 0..3 {
                let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
                talk(&stream, || stream.shutdown(Shutdown::Write).unwrap());
            }
            // A unix socket, once.
            let dir = TempDir::new();
            let path = dir.path().join("socket");
            let listener = UnixListener::bind(&path).unwrap();
            let connect = |port: &str| {
                let args = ["port-forward", "--stream", path.to_str().unwrap(), "c", port];
                container.command(&args).output().unwrap()
            };
            assert!(connect("80").status.success());
            let (stream, _) = listener.accept().unwrap();
            talk(&stream, || stream.shutdown(Shutdown::Write).unwrap());
            // Nobody listens there.
            let refused = connect("99");
            let error = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert!(!refused.status.success() && error.contains("connection refused"), "{error}");
            let mut rest = Vec::new();
            assert_eq!(listener.accept().unwrap().0.read_to_end(&mut rest).unwrap(), 0);
            drop(container);
            line.clear();
            output.read_to_string(&mut line).unwrap();
            assert_eq!(line, "Container \"c\" stopped. Exiting...\n");
            assert!(forwarder.wait().unwrap().success());
        });
    }

    #[test]
    fn addresses_and_routes_come_back() {
        each_platform(|wire, runtime| {
            for (family, router) in [("-4", "10.87.0.1"), ("-6", "fd87::1")] {
                wire.ask_inside(&["ip", family, "route", "add", "default", "via", router]).unwrap();
            }
            // The interface's own address is made a moment after it is up.
            let settled = || {
                let lines = wire.network();
                lines.iter().any(|line| line.contains("fe80:") && line.starts_with("addr"))
                    && lines.iter().all(|line| !line.contains("tentative"))
            };
            eventually("the addresses are there", settled);
            let before = wire.network();
            let (inside, state) = (["python3", "-c", INSIDE], TempDir::new());
            let serves = || wire.outside(&["python3", "-c", OUTSIDE, "name", wire.v4(), wire.v6()]);

            let first = runtime.start_as(wire, &inside, &state, "a").ready();
            assert!(wire.network().iter().all(|line| !line.starts_with("addr")));
            drop(first);
            assert_eq!(wire.network(), before, "after a delete");

            // Nobody deletes it.
            let mut first = runtime.start_as(wire, &inside, &state, "a").ready();
            first.crash();
            let second = runtime.start_as(wire, &inside, &state, "b").ready();
            serves();
            drop(first);
            assert!(wire.network().iter().all(|line| !line.starts_with("addr")));
            serves();
            drop(second);
            assert_eq!(wire.network(), before, "after a crash");
        });
    }
}
