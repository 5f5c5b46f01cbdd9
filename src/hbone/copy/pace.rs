//! How much to ask of a program's socket at once.

/// First buffer of a flow, and the least.
const SMALL: usize = 1 << 10;
/// After 128 KiB. With its frame header it fills one TLS record and no second one.
const MEDIUM: usize = 16_320;
/// After 10 MiB. Eight TLS records with its frame header. Twice that is no faster, and whatever is
/// said beside the flow waits for it.
const LARGE: usize = 131_040;

/// How much to read at once: up to what the flow so far deserves (§1.5), down to what the last
/// read found, so that a long-lived flow of short messages costs short buffers.
#[derive(Debug)]
pub(super) struct Pace {
    moved: u64,
    next: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            moved: 0,
            next: SMALL,
        }
    }
}

impl Pace {
    /// Bytes to make room for.
    pub(super) fn size(&self) -> usize {
        self.next
    }

    /// The size of block that holds them.
    pub(super) fn block(&self) -> usize {
        let sizes = [SMALL, MEDIUM];
        let fits = sizes.into_iter().find(|size| self.next <= *size);
        fits.unwrap_or(LARGE)
    }

    /// Learns that `read` bytes were found where `room` was given.
    pub(super) fn note(&mut self, read: usize, room: usize) {
        self.moved += read as u64;
        let most = match self.moved {
            0..0x2_0000 => SMALL,
            0x2_0000..0xA0_0000 => MEDIUM,
            _ => LARGE,
        };
        self.next = if read >= room {
            most
        } else {
            (2 * read).clamp(SMALL, most)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_follow_the_flow() {
        for (name, reads, want) in [
            ("at first", vec![], SMALL),
            ("full reads below 128 KiB", vec![(1024, 1024); 127], SMALL),
            ("full reads past 128 KiB", vec![(1024, 1024); 128], MEDIUM),
            ("full reads past 10 MiB", vec![(16_320, 16_320); 643], LARGE),
            (
                "short messages past 10 MiB",
                [vec![(16_320, 16_320); 643], vec![(100, LARGE)]].concat(),
                SMALL,
            ),
            (
                "a third of a buffer past 10 MiB",
                [vec![(16_320, 16_320); 643], vec![(40_000, LARGE)]].concat(),
                80_000,
            ),
            (
                "little room, filled",
                [vec![(16_320, 16_320); 643], vec![(10, 10)]].concat(),
                LARGE,
            ),
        ] {
            let mut pace = Pace::default();
            for (read, room) in reads {
                pace.note(read, room);
            }
            assert_eq!(pace.size(), want, "{name}");
        }
    }
}
