//! Keys (`linux/keyctl.h`): what a kernel needs to refuse them by name.
#![expect(missing_docs, reason = "the names are Linux's own")]

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
        KEYCTL_CAPABILITIES = 31;
    }
}
