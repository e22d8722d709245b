//! What programs take: interpreters, compilers, tools over trees of files, databases and servers on loopback.
//!
//! They come from the root file system of the services, above which each visit has a layer of its own to write to.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use test_harness::{Bundle, Cmd, End, Rootfs, TempDir, bundle};

use crate::report;
use crate::runtime::Runtime;

const SCRIPT: &str = include_str!("programs.sh");

/// Where the guest program is in a container.
const GUEST: &str = "/bench-guest";

/// How long all programs together may take.
const DEADLINE: Duration = Duration::from_secs(600);

/// Returns the names of the functions in the script.
pub(crate) fn list() -> Vec<String> {
    let output = Cmd::new(["bash", "-c", SCRIPT, "programs.sh", "list"]).run();
    output.success().lines().map(str::to_owned).collect()
}

/// Runs the named functions in one start of the runtime. Some give more than one time.
pub(crate) fn measure(runtime: &Runtime, guest: &Path, names: &[String]) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    let root = match Root::new(guest) {
        Ok(root) => root,
        Err(why) => {
            report::note(&format!("{}: programs: {why}", runtime.name));
            return found;
        }
    };
    let words = ["bash", "-c", SCRIPT, "programs.sh"].map(OsString::from);
    let program = Cmd::new(words.into_iter().chain(names.iter().map(OsString::from)));
    let program = program.deadline(DEADLINE);
    let output = if runtime.is_native() {
        let script = "mount --rbind /dev \"$1/dev\" && mount -t proc proc \"$1/proc\" && \
                      mount -t tmpfs tmpfs \"$1/tmp\" && mount -t tmpfs tmpfs \"$1/run\" && \
                      mount --bind \"$2\" \"$1/bind\" && root=$1 && shift 2 && exec chroot \"$root\" \"$@\"";
        let before = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script];
        let mut argv: Vec<OsString> = before.map(OsString::from).to_vec();
        argv.extend(["sh".into(), root.merged.clone().into(), root.bind.path().into()]);
        argv.extend_from_slice(program.argv());
        program.with_argv(argv).run()
    } else {
        let state = TempDir::new();
        let mut config = bundle::config(&Rootfs::Shared(root.merged.clone()), &program);
        config["root"]["readonly"] = json!(false);
        if let Some(mounts) = config["mounts"].as_array_mut() {
            mounts.push(json!({"destination": "/bind", "type": "bind", "source": root.bind.path(),
                               "options": ["bind", "rw"]}));
        }
        Bundle::with_config(&config).run(runtime.command(&state), &program)
    };
    if output.end != End::Code(0) {
        let why = String::from_utf8_lossy(&output.stderr);
        report::note(&format!("{}: programs: {:?} {}", runtime.name, output.end, why.trim()));
    }
    report::parse(&output.text(), &mut found);
    found
}

/// The root file system with a layer above it, mounted until this is dropped, and a folder to bind.
struct Root {
    merged: PathBuf,
    bind: TempDir,
    _layers: TempDir,
}

impl Root {
    fn new(guest: &Path) -> Result<Root, String> {
        let (layers, bind) = (TempDir::new(), TempDir::new());
        for name in ["upper", "work", "merged"] {
            std::fs::create_dir(layers.join(name)).map_err(|error| error.to_string())?;
        }
        let merged = layers.join("merged");
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            Rootfs::services().path().display(),
            layers.join("upper").display(),
            layers.join("work").display()
        );
        let words = ["mount", "-t", "overlay", "-o", &options, "overlay"].map(OsString::from);
        let output =
            Cmd::new(words.into_iter().chain(std::iter::once(merged.clone().into()))).run();
        if output.end != End::Code(0) {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        let root = Root { merged, bind, _layers: layers };
        std::fs::copy(guest, root.merged.join(GUEST.trim_start_matches('/')))
            .and_then(|_| std::fs::create_dir_all(root.merged.join("bind")))
            .map_err(|error| error.to_string())?;
        Ok(root)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let words = ["umount".into(), "--lazy".into(), OsString::from(&self.merged)];
        let _ = Cmd::new(words).run();
    }
}
