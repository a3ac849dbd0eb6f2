//! Hosts that lead to each other: two doors, what many links lead to as to a CDN, and another one behind it. They refuse, go down and
//! come back; what each was asked and said stands in its own record.

use crate::Origin;

pub(super) struct Web {
    doors: [Origin; 2],
    cdn: Origin,
    far: Origin,
    /// Hosts that lead nowhere else, with bad periods of their own.
    crowd: Vec<Origin>,
}

impl Web {
    /// With so many more hosts that lead nowhere else.
    pub(super) fn start(crowd: usize) -> Web {
        Web {
            doors: [Origin::start(), Origin::start()],
            cdn: Origin::start(),
            far: Origin::start(),
            crowd: (0..crowd).map(|_| Origin::start()).collect(),
        }
    }

    /// Those that lead to each other.
    pub(super) fn origins(&self) -> [&Origin; 4] {
        [&self.cdn, &self.far, &self.doors[0], &self.doors[1]]
    }

    /// Those that lead nowhere else.
    pub(super) fn crowd(&self) -> &[Origin] {
        &self.crowd
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &Origin> {
        self.origins().into_iter().chain(&self.crowd)
    }

    /// The one that most links lead to.
    pub(super) fn cdn(&self) -> &Origin {
        &self.cdn
    }

    /// The target of a redirect that has two lies elsewhere from now on.
    pub(super) fn move_targets(&self) {
        self.doors.iter().for_each(Origin::move_targets);
    }

    /// A link that ends at `image`, by one of the ways that there are.
    pub(super) fn link(&self, random: &mut fastrand::Rng, image: &str) -> String {
        let door = &self.doors[random.usize(..2)];
        let (second, cdn, far) = (self.doors[1].port(), self.cdn.port(), self.far.port());
        match random.u32(..10) {
            0..4 => door.url(&format!("via/{cdn}/{image}")),
            // A chain.
            4 => self.doors[0].url(&format!("via/{second}/via/{cdn}/{image}")),
            5 => door.url(&format!("via/{far}/{image}")),
            // Within a host.
            6 => self.far.url(&format!("redirect/{image}")),
            // A target that changes.
            7 | 8 => door.url(&format!("moving/{cdn}/{far}/{image}")),
            _ => self.cdn.url(image),
        }
    }

    /// Whether it is a link of this web.
    pub(super) fn has(&self, link: &str) -> bool {
        self.door_of(link).is_some()
    }

    /// The host that a link names.
    pub(super) fn door_of(&self, link: &str) -> Option<&Origin> {
        self.all().find(|origin| link.starts_with(&origin.url("")))
    }

    /// Whether the redirects of `link` lead to `hosts`, one after the other.
    pub(super) fn leads_to(&self, link: &str, hosts: &[&str]) -> bool {
        let Some(door) = self.door_of(link) else { return false };
        let host_at = |port: &str| format!("127.0.0.1:{port}");
        let (mut asked, mut rest) = (door.host(), link.split('/').skip(3));
        !hosts.is_empty()
            && hosts.iter().all(|host| {
                let next = match rest.next() {
                    Some("redirect") => vec![asked.clone()],
                    Some("via") => rest.next().map(host_at).into_iter().collect(),
                    // One of two, as the time may be.
                    Some("moving") => rest.by_ref().take(2).map(host_at).collect(),
                    _ => return false,
                };
                asked = (*host).to_owned();
                next.iter().any(|next| next == host)
            })
    }
}
