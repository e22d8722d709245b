# cargo: a crate with a build script, a vendored dependency and tests, without a network.
set -e
export HOME=/tmp CARGO_HOME=/tmp/cargo CARGO_NET_OFFLINE=true
mkdir -p c/{src,vendor/adder/src,tests}
cd c
cat >Cargo.toml <<'END'
[package]
name = "c"
version = "0.1.0"
edition = "2021"
[dependencies]
adder = "1"
[profile.dev]
debug = false
END
mkdir .cargo && cat >.cargo/config.toml <<'END'
[source.crates-io]
replace-with = "vendored"
[source.vendored]
directory = "vendor"
END
cat >vendor/adder/Cargo.toml <<'END'
[package]
name = "adder"
version = "1.0.0"
edition = "2021"
END
echo 'pub fn add(a: u64, b: u64) -> u64 { a + b }' >vendor/adder/src/lib.rs
(cd vendor/adder; echo "{\"files\":{$(sha256sum Cargo.toml src/lib.rs | awk '{ printf "%s\"%s\":\"%s\"", s, $2, $1; s = "," }')},\"package\":\"$(printf 0%.0s {1..64})\"}" >.cargo-checksum.json)
cat >build.rs <<'END'
fn main() { println!("cargo:rustc-env=BUILT=yes"); }
END
cat >src/main.rs <<'END'
use std::io::{Read, Write};
fn main() {
    let threads: Vec<_> = (0..20u64).map(|i| std::thread::spawn(move || adder::add(i, 1))).collect();
    println!("{} {}", env!("BUILT"), threads.into_iter().map(|t| t.join().unwrap()).sum::<u64>());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || { let (mut s, _) = listener.accept().unwrap(); let mut v = vec![]; s.read_to_end(&mut v).unwrap(); v.len() });
    std::net::TcpStream::connect(to).unwrap().write_all(&[0; 100000]).unwrap();
    println!("{}", server.join().unwrap());
    let end = std::process::Command::new("sh").args(["-c", "kill -9 $$"]).status().unwrap();
    println!("{end}");
    std::process::exit(9);
}
END
cat >tests/it.rs <<'END'
#[test]
fn adds() { assert_eq!(adder::add(1, 2), 3); }
#[test]
#[should_panic]
fn panics() { panic!("as it should") }
END
cargo build -j1 2>&1 | sed 's/ target(s) in .*//'
status=0
target/debug/c || status=$?
echo "exit $status"
touch src/main.rs; cargo build -j1 2>&1 | sed 's/ target(s) in .*//'
cargo test 2>&1 | sed 's/ target(s) in .*//; s/finished in .*//; s/-[0-9a-f]\{16\}//' | sort
cargo tree
