//! Rulesets: as descriptors, and how they become domains.

use std::collections::BTreeMap;
use std::sync::Arc;

use syscalls::abi::landlock::{AccessFs, AccessNet, Scopes};
use syscalls::{Errno, SysResult};

use super::files::OF_FILES;
use super::{Domain, FileRule, MAX_LAYERS, Ruleset, key};
use crate::sync::Mutex;
use crate::task::CurrentTask;
use crate::vfs::anon::{self, AnonMount};
use crate::vfs::{Attr, File, Path};

/// The most rules of a ruleset: a guard for the sentry's memory.
const MAX_RULES: usize = 1 << 16;

impl Ruleset {
    /// Returns a ruleset without rules.
    pub(crate) fn new(handled_fs: AccessFs, handled_net: AccessNet, scoped: Scopes) -> Self {
        let (files, ports) = (BTreeMap::new(), BTreeMap::new());
        Self { handled_fs, handled_net, scoped, files, ports }
    }

    /// Allows something below a place.
    ///
    /// # Errors
    /// `EINVAL` for what is not handled, or means nothing for a file that is no directory; `E2BIG` for
    /// too many rules.
    pub(crate) fn allow_below(&mut self, path: &Path, allowed: AccessFs) -> SysResult<()> {
        let is_meant = path.dentry.is_dir() || OF_FILES.contains(allowed);
        if !self.handled_fs.contains(allowed) || !is_meant {
            return Err(Errno::EINVAL);
        }
        self.check_room()?;
        let rule = FileRule { _dentry: path.dentry.clone(), allowed };
        let known = self.files.entry(key(&path.dentry)).or_insert(rule);
        known.allowed |= allowed;
        Ok(())
    }

    /// Returns what rules may be about.
    pub(crate) fn handled(&self) -> (AccessFs, AccessNet) {
        (self.handled_fs, self.handled_net)
    }

    /// Allows the use of a port.
    ///
    /// # Errors
    /// `E2BIG` for too many rules.
    pub(crate) fn allow_port(&mut self, port: u16, allowed: AccessNet) -> SysResult<()> {
        self.check_room()?;
        *self.ports.entry(port).or_default() |= allowed;
        Ok(())
    }

    fn check_room(&self) -> SysResult<()> {
        let n_rules = self.files.len().saturating_add(self.ports.len());
        if n_rules < MAX_RULES { Ok(()) } else { Err(Errno::E2BIG) }
    }
}

impl Domain {
    /// Returns the domain that whoever has domain `parent` enters with a ruleset.
    ///
    /// # Errors
    /// `E2BIG` for too many layers.
    pub(crate) fn below(parent: Option<Arc<Self>>, layer: Ruleset) -> SysResult<Arc<Self>> {
        let n_layers = parent.as_ref().map_or(0, |parent| parent.n_layers) + 1;
        if n_layers > MAX_LAYERS {
            return Err(Errno::E2BIG);
        }
        Ok(Arc::new(Self { parent, n_layers, layer }))
    }
}

/// A ruleset's descriptor.
pub(crate) struct RulesetFile {
    attr: Attr,
    pub(crate) ruleset: Mutex<Ruleset>,
}

impl RulesetFile {
    pub(crate) fn new(task: &CurrentTask, ruleset: Ruleset) -> Arc<Self> {
        let attr = anon::attr(task, AnonMount::Inode, 0o600);
        Arc::new(Self { attr, ruleset: Mutex::new(ruleset) })
    }
}

impl File for RulesetFile {
    fn attr(&self) -> SysResult<Attr> {
        Ok(self.attr)
    }

    fn anonymous_name(&self) -> String {
        String::from("anon_inode:[landlock-ruleset]")
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn can_splice_from(&self) -> bool {
        false
    }

    fn can_splice_to(&self) -> bool {
        false
    }
}
