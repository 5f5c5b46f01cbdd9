//! How requests end, in Envoy's response flags (`spec/waypoint-l7.md` §1.9).

/// A flag, or several.
pub(in crate::waypoint::http) type Flag = &'static str;

/// A flag with those of what happened on the way: a delay that a fault made, and retries used up.
pub(super) fn flags(flag: Flag, delayed: bool, exhausted: bool) -> Flag {
    macro_rules! together {
        ($($one:literal)*) => {
            match (flag, delayed, exhausted) {
                ("-", true, false) => "DI",
                ("-", false, true) => "URX",
                ("-", true, true) => "DI,URX",
                $(($one, true, false) => concat!("DI,", $one),
                ($one, false, true) => concat!($one, ",URX"),
                ($one, true, true) => concat!("DI,", $one, ",URX"),)*
                _ => flag,
            }
        };
    }
    together!("UH" "UF" "UC" "UR" "UT" "UO" "NR" "NC" "FI" "DC" "DPE" "RL")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_tell_of_the_way_too() {
        for (flag, delayed, exhausted, want) in [
            ("-", false, false, "-"),
            ("UF", false, false, "UF"),
            ("-", true, false, "DI"),
            ("FI", true, false, "DI,FI"),
            ("UF", false, true, "UF,URX"),
            ("-", false, true, "URX"),
            ("UT", true, true, "DI,UT,URX"),
        ] {
            let told = flags(flag, delayed, exhausted);
            assert_eq!(told, want, "{flag} {delayed} {exhausted}");
        }
    }
}
