//! What the tests of all platforms share: a kernel of a few lines, guest programs, and the cases.
//!
//! A case is a function over `&Machine`; `cases!` makes one test per case and platform.

pub(crate) mod basic;
pub(crate) mod guest;
pub(crate) mod hostile;
pub(crate) mod machine;

pub(crate) use machine::Machine;

/// Defines a test for each case, on the platform that the expression makes.
#[macro_export]
macro_rules! cases {
    ($new:expr; $($module:ident::$case:ident)*) => {
        $(
            #[test]
            fn $case() {
                let platform = std::sync::Arc::new($new);
                let (machine, serving) = $crate::common::Machine::start(platform);
                $crate::common::$module::$case(&machine);
                machine.platform.shutdown();
                serving.join().unwrap();
            }
        )*
    };
}
