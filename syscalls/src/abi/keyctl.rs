//! Keys (`linux/keyctl.h`, `linux/key.h`).
#![expect(missing_docs, reason = "the names are Linux's own")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

constants! {
    /// Keyrings that have no number of their own.
    KEY_SPEC_NAMES: i32 {
        KEY_SPEC_THREAD_KEYRING = -1;
        KEY_SPEC_PROCESS_KEYRING = -2;
        KEY_SPEC_SESSION_KEYRING = -3;
        KEY_SPEC_USER_KEYRING = -4;
        KEY_SPEC_USER_SESSION_KEYRING = -5;
        KEY_SPEC_GROUP_KEYRING = -6;
    }
}

constants! {
    /// Where `request_key(2)` puts what it makes.
    KEY_REQKEY_DEFL_NAMES: i32 {
        KEY_REQKEY_DEFL_NO_CHANGE = -1;
        KEY_REQKEY_DEFL_DEFAULT = 0;
        KEY_REQKEY_DEFL_THREAD_KEYRING = 1;
        KEY_REQKEY_DEFL_PROCESS_KEYRING = 2;
        KEY_REQKEY_DEFL_SESSION_KEYRING = 3;
        KEY_REQKEY_DEFL_USER_KEYRING = 4;
        KEY_REQKEY_DEFL_USER_SESSION_KEYRING = 5;
        KEY_REQKEY_DEFL_GROUP_KEYRING = 6;
        KEY_REQKEY_DEFL_REQUESTOR_KEYRING = 7;
    }
}

flags! {
    /// Permissions of a key: of whoever possesses it, its owner, its group, the rest.
    pub struct KeyPerm: u32 as "KEY_" {
        POS_VIEW = 0x0100_0000;
        POS_READ = 0x0200_0000;
        POS_WRITE = 0x0400_0000;
        POS_SEARCH = 0x0800_0000;
        POS_LINK = 0x1000_0000;
        POS_SETATTR = 0x2000_0000;
        POS_ALL = 0x3f00_0000;
        USR_VIEW = 0x0001_0000;
        USR_READ = 0x0002_0000;
        USR_LINK = 0x0010_0000;
        USR_ALL = 0x003f_0000;
        GRP_ALL = 0x0000_3f00;
        OTH_ALL = 0x0000_003f;
    }
}

constants! {
    /// Commands of `keyctl(2)`.
    KEYCTL_NAMES: i32 {
        KEYCTL_GET_KEYRING_ID = 0;
        KEYCTL_JOIN_SESSION_KEYRING = 1;
        KEYCTL_UPDATE = 2;
        KEYCTL_REVOKE = 3;
        KEYCTL_CHOWN = 4;
        KEYCTL_SETPERM = 5;
        KEYCTL_DESCRIBE = 6;
        KEYCTL_CLEAR = 7;
        KEYCTL_LINK = 8;
        KEYCTL_UNLINK = 9;
        KEYCTL_SEARCH = 10;
        KEYCTL_READ = 11;
        KEYCTL_INSTANTIATE = 12;
        KEYCTL_NEGATE = 13;
        KEYCTL_SET_REQKEY_KEYRING = 14;
        KEYCTL_SET_TIMEOUT = 15;
        KEYCTL_ASSUME_AUTHORITY = 16;
        KEYCTL_GET_SECURITY = 17;
        KEYCTL_SESSION_TO_PARENT = 18;
        KEYCTL_REJECT = 19;
        KEYCTL_INSTANTIATE_IOV = 20;
        KEYCTL_INVALIDATE = 21;
        KEYCTL_GET_PERSISTENT = 22;
        KEYCTL_DH_COMPUTE = 23;
        KEYCTL_PKEY_QUERY = 24;
        KEYCTL_PKEY_ENCRYPT = 25;
        KEYCTL_PKEY_DECRYPT = 26;
        KEYCTL_PKEY_SIGN = 27;
        KEYCTL_PKEY_VERIFY = 28;
        KEYCTL_RESTRICT_KEYRING = 29;
        KEYCTL_MOVE = 30;
        KEYCTL_CAPABILITIES = 31;
        KEYCTL_WATCH_KEY = 32;
    }
}
