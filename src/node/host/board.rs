//! Who is who on this host's own network, as those who serve connections look it up.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::agent::{MeshState, Placement};
use crate::capture::ruleset::host::Mark;
use crate::model::declaration::Capture;
use crate::model::sharing::{Sharer, Sharing, shares};

/// Gives each workload a mark, the same for as long as it stays.
#[derive(Debug, Default)]
pub(super) struct Marks {
    given: BTreeMap<Arc<str>, Mark>,
    last: Option<Mark>,
}

impl Marks {
    /// Gives those a mark who have none, and takes back those of all others. One that was taken back is
    /// given again last of all, and one that the rules still give to whoever had it, those of an earlier
    /// process among them, to nobody while there are others: a connection that comes under it is not
    /// the next one's. Who finds none left has none.
    pub(super) fn assign<'a>(
        &mut self,
        uids: impl Iterator<Item = &'a Arc<str>>,
        in_force: impl Iterator<Item = &'a Mark>,
    ) {
        let mut stay = BTreeMap::new();
        let mut new = Vec::new();
        for uid in uids {
            match self.given.remove(uid) {
                Some(mark) => _ = stay.insert(Arc::clone(uid), mark),
                None => new.push(uid),
            }
        }
        self.given = stay;
        if new.is_empty() {
            return;
        }
        let given: BTreeSet<Mark> = self.given.values().copied().collect();
        let in_force: BTreeSet<Mark> = in_force.copied().collect();
        let after = |last| Mark::all().filter(move |mark| Some(*mark) > last);
        let turn: Vec<Mark> = after(self.last).chain(Mark::all()).collect();
        let free = |mark: &&Mark| !given.contains(mark);
        let (taken, best): (Vec<&Mark>, Vec<&Mark>) = turn
            .iter()
            .filter(free)
            .partition(|mark| in_force.contains(mark));
        let mut once = BTreeSet::new();
        let marks = best
            .into_iter()
            .chain(taken)
            .filter(|mark| once.insert(**mark));
        for (uid, mark) in new.into_iter().zip(marks) {
            self.last = Some(*mark);
            self.given.insert(Arc::clone(uid), *mark);
        }
    }

    /// All of them, by the bits that a socket bears.
    pub(super) fn known(&self) -> HashMap<u32, Arc<str>> {
        let given = self.given.iter();
        given
            .map(|(uid, mark)| (mark.bits(), Arc::clone(uid)))
            .collect()
    }

    /// A workload's mark.
    pub(super) fn of(&self, uid: &str) -> Option<Mark> {
        self.given.get(uid).copied()
    }
}

/// Whether a workload is served on this host's own network.
pub(super) fn is_hosted(placement: &Placement) -> bool {
    let capture = placement.capture.as_ref();
    let hosted = |capture: &Capture| shares(capture) || matches!(capture, Capture::Interface(_));
    placement.enrolled && capture.is_some_and(hosted)
}

/// Who is who, as of one mesh.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Board {
    /// Those who share this host's addresses.
    pub(super) sharing: Sharing,
    by_mark: HashMap<Mark, Arc<str>>,
    /// Those behind an interface of this host, by their own addresses.
    guests: HashMap<IpAddr, Arc<str>>,
}

impl Board {
    /// The workloads of a mesh that are served on this host's network, under these marks.
    pub(super) fn of(mesh: &MeshState, marks: &Marks) -> Self {
        let hosted = || mesh.placements.iter().filter(|p| is_hosted(p));
        let sharers = hosted().filter_map(|placement| {
            let capture = placement.capture.as_ref();
            let workload = mesh.view.workload(&placement.uid);
            let workload = workload.filter(|_| capture.is_some_and(shares))?;
            Sharer::new(&mesh.view, workload, placement.health.as_ref())
        });
        let guests = hosted().filter(|p| matches!(p.capture, Some(Capture::Interface(_))));
        let guests = guests.flat_map(|placement| {
            let workload = mesh.view.workload(&placement.uid);
            let addresses = workload.into_iter().flat_map(|w| w.addresses.iter());
            addresses.map(|address| (*address, Arc::clone(&placement.uid)))
        });
        let by_mark = hosted().filter_map(|p| Some((marks.of(&p.uid)?, Arc::clone(&p.uid))));
        Self {
            sharing: Sharing::new(sharers),
            by_mark: by_mark.collect(),
            guests: guests.collect(),
        }
    }

    /// Whose the connection is that came in on a socket of this mark. The rules give it, a guest's too.
    pub(super) fn client(&self, socket: u32) -> Option<&Arc<str>> {
        self.by_mark.get(&Mark::of(socket)?)
    }

    /// Whom a plain datagram is for.
    pub(super) fn udp_server(&self, destination: SocketAddr) -> Option<&Arc<str>> {
        let sharer = || {
            self.sharing
                .udp_owner(destination)
                .map(|sharer| &sharer.uid)
        };
        self.guest(destination.ip()).or_else(sharer)
    }

    /// The guest of this address.
    pub(super) fn guest(&self, address: IpAddr) -> Option<&Arc<str>> {
        self.guests.get(&address.to_canonical())
    }

    /// Whom a plain connection is for.
    pub(super) fn server(&self, destination: SocketAddr) -> Option<&Arc<str>> {
        let sharer = || self.sharing.owner(destination).map(|sharer| &sharer.uid);
        self.guest(destination.ip()).or_else(sharer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::{service, view, workload};

    fn uids(names: &[&str]) -> Vec<Arc<str>> {
        names.iter().map(|name| Arc::from(*name)).collect()
    }

    #[test]
    fn a_mark_stays_and_comes_back_last() {
        let mut marks = Marks::default();
        let mut step = |names: &[&str]| {
            let all = uids(names);
            marks.assign(all.iter(), [].iter());
            let of = |name: &&str| marks.of(name).map(Mark::bits);
            names.iter().map(of).collect::<Vec<_>>()
        };
        for (name, uids, want) in [
            ("two", &["a", "b"][..], &[Some(0x600), Some(0x601)][..]),
            ("one leaves", &["b"], &[Some(0x601)]),
            ("another comes", &["b", "c"], &[Some(0x601), Some(0x602)]),
            (
                "the first is back",
                &["a", "b"],
                &[Some(0x603), Some(0x601)],
            ),
        ] {
            assert_eq!(step(uids), want, "{name}");
        }
        let many: Vec<String> = (0..0xa00).map(|n| format!("w{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let all = step(&many);
        let distinct: BTreeSet<_> = all.iter().flatten().collect();
        assert_eq!(distinct.len(), 0xa00, "every mark there is");
        let mut more = many;
        more.push("one too many");
        assert_eq!(step(&more).last(), Some(&None));
    }

    #[test]
    fn a_mark_that_rules_give_to_another_is_nobody_elses() {
        let mark = |bits| Mark::try_from(bits).unwrap();
        let assigned = |marks: &mut Marks, names: &[&str], in_force: &[Mark]| {
            marks.assign(uids(names).iter(), in_force.iter());
            let of = |name: &&str| marks.of(name).map(Mark::bits);
            names.iter().map(of).collect::<Vec<_>>()
        };
        let mut marks = Marks::default();
        let before = [0x600, 0x602].map(mark);
        let got = assigned(&mut marks, &["a", "b"], &before);
        assert_eq!(got, [Some(0x601), Some(0x603)], "of an earlier process");
        let ours = [0x601, 0x603].map(mark);
        let got = assigned(&mut marks, &["a", "b", "c"], &ours);
        assert_eq!(got, [Some(0x601), Some(0x603), Some(0x604)], "its own stay");
        let last = (0..0xa00 - 3).map(|n| format!("w{n}")).collect::<Vec<_>>();
        let mut names: Vec<&str> = last.iter().map(String::as_str).collect();
        names.extend(["a", "b", "c"]);
        let all = assigned(&mut marks, &names, &before);
        let distinct: BTreeSet<_> = all.iter().flatten().collect();
        assert_eq!(distinct.len(), 0xa00, "while there are others");
        assert_eq!(all[..0xa00 - 3].iter().rev().nth(1), Some(&Some(0x600)));
    }

    fn placement(name: &str, capture: Capture, enrolled: bool) -> Arc<Placement> {
        Arc::new(Placement {
            uid: Arc::from(name),
            name: Arc::from(name),
            namespace: Arc::from("shop"),
            service_account: Arc::from(name),
            enrolled,
            capture: Some(capture),
            dns_capture: None,
            health: None,
        })
    }

    #[test]
    fn connections_are_told_apart_by_mark_port_and_address() {
        const HOST: &str = "10.77.0.11";
        let name = || Arc::from("x");
        let mesh = MeshState {
            placements: vec![
                placement("cart", Capture::Unit(name()), true),
                placement("web", Capture::User(name()), true),
                placement("vm", Capture::Interface(name()), true),
                placement("own", Capture::Netns(name()), true),
                placement("off", Capture::Unit(name()), false),
                placement("unheard", Capture::Unit(name()), true),
            ],
            view: view(
                vec![
                    workload("cart", &[HOST]).of("cart").host_network(),
                    workload("web", &[HOST]).host_network(),
                    workload("off", &[HOST])
                        .mapping("cart", 80, 7)
                        .host_network(),
                    workload("vm", &["10.88.0.2"]),
                    workload("own", &["10.77.1.11"]),
                ],
                vec![service("cart", &["10.96.0.10"])],
            )
            .into(),
            ..MeshState::default()
        };
        let mut marks = Marks::default();
        let hosted: Vec<_> = mesh.placements.iter().filter(|p| is_hosted(p)).collect();
        marks.assign(hosted.iter().map(|p| &p.uid), [].iter());
        let board = Board::of(&mesh, &marks);
        for (name, mark, want) in [
            ("a unit", 0x600, Some("cart")),
            ("a user", 0x601, Some("web")),
            ("a guest", 0x602, Some("vm")),
            ("with others' bits in it", 0x7000_0601, Some("web")),
            ("not heard of yet", 0x603, Some("unheard")),
            ("the proxy itself", 0x539, None),
            ("nobody's", 0x700, None),
            ("no mark", 0, None),
        ] {
            let client = board.client(mark);
            assert_eq!(client.map(|uid| &**uid), want, "{name}");
        }
        for (to, want) in [
            ("10.77.0.11:8080", Some("cart")),
            ("10.77.0.11:7", None),
            ("10.77.0.11:22", None),
            ("10.88.0.2:22", Some("vm")),
        ] {
            let server = board.server(to.parse().unwrap());
            assert_eq!(server.map(|uid| &**uid), want, "{to}");
        }
    }
}
