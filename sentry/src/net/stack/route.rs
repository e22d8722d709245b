//! Which way a packet goes.

use std::net::{IpAddr, Ipv6Addr};

use crate::config::network::{NetworkConfig, RouteConfig};

/// The routes, the one that counts first.
pub(super) struct Routes(Vec<RouteConfig>);

impl Routes {
    pub(super) fn new(config: &NetworkConfig) -> Self {
        let mut routes = config.routes.clone();
        // The network of an address is reachable even where no route says so.
        routes.extend(config.interfaces.iter().flat_map(|interface| {
            interface.addrs.iter().map(|addr| RouteConfig {
                to: addr.ip,
                prefix: addr.prefix,
                gateway: None,
                interface: interface.index,
                metric: u32::MAX,
                source: None,
            })
        }));
        routes.sort_by_key(|route| (u8::MAX - route.prefix, route.metric));
        Self(routes)
    }

    /// Returns the route to an address; over a given interface where there is one.
    pub(super) fn find(&self, to: IpAddr, interface: Option<i32>) -> Option<&RouteConfig> {
        let fits = |route: &&RouteConfig| {
            interface.is_none_or(|interface| interface == route.interface)
                && is_in(to, route.to, route.prefix)
        };
        self.0.iter().find(fits)
    }
}

/// Returns whether an address is in a network.
pub(in crate::net) fn is_in(ip: IpAddr, network: IpAddr, prefix: u8) -> bool {
    match (ip, network) {
        (IpAddr::V4(ip), IpAddr::V4(network)) => {
            let differing = u32::from(ip) ^ u32::from(network);
            differing.leading_zeros() >= u32::from(prefix.min(32))
        }
        (IpAddr::V6(ip), IpAddr::V6(network)) => {
            let differing = u128::from(ip) ^ u128::from(network);
            differing.leading_zeros() >= u32::from(prefix.min(128))
        }
        _ => false,
    }
}

/// Returns whether an address is one of its link alone.
pub(in crate::net) fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if is_in(
        IpAddr::V6(ip),
        IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)),
        10,
    ))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::{Routes, is_in, is_link_local};
    use crate::config::network::{AddrConfig, InterfaceConfig, NetworkConfig, RouteConfig};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_hold_their_addresses() {
        assert!(is_in(ip("10.1.2.3"), ip("10.0.0.0"), 8));
        assert!(!is_in(ip("11.1.2.3"), ip("10.0.0.0"), 8));
        assert!(is_in(ip("11.1.2.3"), ip("0.0.0.0"), 0));
        assert!(!is_in(ip("11.1.2.3"), ip("::"), 0));
        assert!(is_in(ip("fd00::1:2"), ip("fd00::"), 64));
        assert!(is_link_local(ip("fe80::1")));
        assert!(!is_link_local(ip("fd00::1")));
    }

    #[test]
    fn narrowest_route_of_the_least_metric_is_taken() {
        let route = |to, prefix, interface, metric| RouteConfig {
            to: ip(to),
            prefix,
            gateway: None,
            interface,
            metric,
            source: None,
        };
        let config = NetworkConfig {
            interfaces: vec![InterfaceConfig {
                name: "eth0".into(),
                index: 2,
                mac: [2, 0, 0, 0, 0, 1],
                mtu: 1500,
                addrs: vec![AddrConfig { ip: ip("10.5.0.2"), prefix: 16 }],
            }],
            routes: vec![
                route("0.0.0.0", 0, 2, 100),
                route("0.0.0.0", 0, 3, 50),
                route("10.0.0.0", 8, 3, 0),
            ],
            has_resolver: false,
        };
        let routes = Routes::new(&config);
        let interface = |to| routes.find(ip(to), None).map(|route| route.interface);
        assert_eq!(interface("10.5.0.9"), Some(2));
        assert_eq!(interface("10.9.0.9"), Some(3));
        assert_eq!(interface("8.8.8.8"), Some(3));
        assert_eq!(interface("fd00::1"), None);
        assert_eq!(routes.find(ip("8.8.8.8"), Some(2)).map(|route| route.metric), Some(100));
    }
}
