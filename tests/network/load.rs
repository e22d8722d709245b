//! Servers under the load of the usual tools.

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use test_harness::wire::Wire;

    use crate::runtime::each_runtime;

    const SERVERS: &str = include_str!("servers.sh");

    /// How much iperf3 sends in all.
    const BYTES: &str = "48M";

    /// What is asked of iperf3: a server for each, which serves one client.
    const TRAFFIC: [(&str, &[&str]); 8] = [
        ("v4", &["-P4", "-n", BYTES]),
        ("v4", &["-P4", "-n", BYTES, "-R"]),
        ("v4", &["-P2", "-n", BYTES, "--bidir"]),
        ("v6", &["-P4", "-n", BYTES]),
        ("v6", &["-P4", "-n", BYTES, "-R"]),
        ("v4", &["-u", "-b", "50M", "-t", "1"]),
        ("v6", &["-u", "-b", "50M", "-t", "1", "-R"]),
        ("v6", &["-u", "-b", "20M", "-t", "1", "-P3", "-l", "4000"]),
    ];

    /// Returns what is the same every time of what iperf3 says.
    fn iperf3(wire: &Wire, port: usize, family: &str, args: &[&str]) -> String {
        let addr = if family == "v4" { wire.v4() } else { wire.v6() };
        let port = port.to_string();
        let said = wire.outside(&[&["iperf3", "-J", "-c", addr, "-p", &port], args].concat());
        let said: Value = serde_json::from_str(&said).unwrap();
        let end = &said["end"];
        let total = |name: &str| end[name]["bytes"].as_u64().unwrap_or(0);
        // Datagrams may be lost, but not all of them.
        let is_udp = args.contains(&"-u");
        let has_arrived = if is_udp {
            end["sum"]["packets"].as_u64() > end["sum"]["lost_packets"].as_u64()
        } else {
            // With both directions at once the first that is done ends it.
            total("sum_sent") + total("sum_sent_bidir_reverse") >= 48 << 20
        };
        let n_streams = end["streams"].as_array().map(Vec::len);
        format!("{family} {args:?}: {:?} {n_streams:?} {has_arrived}\n", said["error"])
    }

    /// Returns what is wrong with the answers to wrk.
    fn wrk(wire: &Wire, n: &str, url: &str) -> String {
        let args = ["wrk", "-t2", "-c", n, "-d1s", "--timeout", "60s", url];
        let said = wire.outside(&args);
        let bad = |line: &&str| line.contains("errors") || line.contains("Non-2xx");
        let bad: Vec<&str> = said.lines().filter(bad).collect();
        let some = said.lines().find_map(|line| line.trim().split_once(" requests in "));
        let has_some = some.is_some_and(|(n, _)| n.parse().is_ok_and(|n: u64| n > 0));
        format!("{url} {bad:?} {has_some}\n")
    }

    #[test]
    fn servers_bear_the_load_of_the_usual_tools() {
        each_runtime(|wire, runtime| {
            let n_servers = TRAFFIC.len().to_string();
            let args = ["bash", "-c", SERVERS, "servers", &n_servers];
            let _container = runtime.container(wire, &args);
            let mut lines = String::new();
            for (port, (family, args)) in (5201..).zip(TRAFFIC) {
                lines += &iperf3(wire, port, family, args);
            }
            for host in [wire.v4(), wire.v6()] {
                let args =
                    "-n 4000 -c 50 -P 4 -d 200 -q --csv -t ping,set,get,incr,lpush,lrange_100";
                let said = wire.outside(
                    &["redis-benchmark", "-h", host]
                        .into_iter()
                        .chain(args.split(' '))
                        .collect::<Vec<_>>(),
                );
                // The names of the tests, and not how fast they were.
                let names = said.lines().filter_map(|line| line.split(',').next());
                lines += &format!("{host} {:?}\n", names.collect::<Vec<_>>());
            }
            lines += &wrk(wire, "100", "http://10.87.0.2:8080/");
            lines += &wrk(wire, "50", "http://[fd87::2]:8080/");
            lines += &wrk(wire, "2", "http://10.87.0.2:8080/large");
            lines += &wrk(wire, "20", "http://10.87.0.2:8081/");
            lines
        });
    }
}
