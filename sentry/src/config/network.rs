//! The network namespace that a sandbox takes over.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Interfaces other than loopback, and the routes over them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkConfig {
    /// The interfaces, in the order of the packet sockets that come along.
    pub interfaces: Vec<InterfaceConfig>,
    /// Unicast routes of the main table.
    pub routes: Vec<RouteConfig>,
    /// Whether a last socket comes along: one to whatever answers questions of DNS at 127.0.0.11 of
    /// the namespace.
    #[serde(default)]
    pub has_resolver: bool,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceConfig {
    /// Its name.
    pub name: String,
    /// Its number.
    pub index: i32,
    /// Its address on the link.
    pub mac: [u8; 6],
    /// The largest packet.
    pub mtu: u32,
    /// Its own addresses.
    pub addrs: Vec<AddrConfig>,
}

/// An address of an interface, and the network that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddrConfig {
    /// The address.
    pub ip: IpAddr,
    /// How many bits of it name the network.
    pub prefix: u8,
}

/// A route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteConfig {
    /// The network that it leads to.
    pub to: IpAddr,
    /// How many bits of it count: none for the default route.
    pub prefix: u8,
    /// The router, where there is one in between.
    pub gateway: Option<IpAddr>,
    /// The number of the interface.
    pub interface: i32,
    /// Of equal routes that with the least is taken.
    pub metric: u32,
    /// The source address that is preferred.
    pub source: Option<IpAddr>,
}
