//! The systrap platform whose doorbell is made of notifications.
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]

mod common;
#[path = "common/systrap.rs"]
mod systrap;

use sentry_platform::systrap::DoorbellChoice;

const DOORBELL: DoorbellChoice = DoorbellChoice::Notify;
