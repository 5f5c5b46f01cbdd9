//! One line for every act that gives or refuses trust: log target `audit`, stable fields.

use std::fmt::Display;

use tracing::{error, info, warn};

/// Trust was given: a token made, a node enrolled, a certificate signed.
pub fn granted(act: &'static str, subject: &dyn Display, by: &dyn Display, detail: &str) {
    info!(target: "audit", act, outcome = "granted", %subject, %by, detail, "audit");
}

/// Trust was refused.
pub fn refused(act: &'static str, subject: &dyn Display, by: &dyn Display, detail: &str) {
    warn!(target: "audit", act, outcome = "refused", %subject, %by, detail, "audit");
}

/// Trust was refused, and somebody must look: a credential is where it should not be.
pub fn alarmed(act: &'static str, subject: &dyn Display, by: &dyn Display, detail: &str) {
    error!(target: "audit", act, outcome = "refused", %subject, %by, detail, alert = true, "audit");
}
