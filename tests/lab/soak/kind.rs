//! The kinds of faults in the storm.

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Away,
    Refused,
    Reset,
    Closed,
    Frozen,
    Torn,
    Dripped,
    OneTorn,
    EventsLost,
    EventsHeld,
    EventsLostButBookmarks,
    Compacted,
    Restored,
    Ahead,
    TooManyRequests,
    Unavailable,
    ServerError,
    TokenRotated,
    TokenRevoked,
    Forbidden,
    NotFound,
    AnswerCut,
    AnswerStalled,
    AnswerLate,
    NoAnswer,
    NoHttp,
    GarbageLine,
    GarbageList,
    LongLine,
    WatchesEnd,
    WatchesEndAtOnce,
    CaRotated,
    Killed,
    Terminated,
    DirectoryDamaged,
}

/// Those of a place exclude each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Server,
    Network,
    Delivery,
    Script,
    Account,
    Program,
}

/// All of them: where each strikes, and for how many milliseconds at least and at most.
pub const ALL: [(Kind, Place, [u64; 2]); 35] = [
    (Kind::Away, Place::Server, [50, 4000]),
    (Kind::Refused, Place::Network, [50, 4000]),
    (Kind::Reset, Place::Network, [50, 2000]),
    (Kind::Closed, Place::Server, [50, 2000]),
    (Kind::Frozen, Place::Network, [50, 4000]),
    (Kind::Torn, Place::Network, [200, 1500]),
    (Kind::Dripped, Place::Network, [200, 1500]),
    (Kind::OneTorn, Place::Network, [100, 3000]),
    (Kind::EventsLost, Place::Delivery, [100, 3000]),
    (Kind::EventsHeld, Place::Delivery, [100, 3000]),
    (Kind::EventsLostButBookmarks, Place::Delivery, [100, 3000]),
    (Kind::Compacted, Place::Server, [50, 2000]),
    (Kind::Restored, Place::Server, [50, 2000]),
    (Kind::Ahead, Place::Server, [50, 2000]),
    (Kind::TooManyRequests, Place::Script, [50, 2000]),
    (Kind::Unavailable, Place::Script, [50, 2000]),
    (Kind::ServerError, Place::Script, [50, 2000]),
    (Kind::TokenRotated, Place::Account, [50, 2000]),
    (Kind::TokenRevoked, Place::Account, [50, 1500]),
    (Kind::Forbidden, Place::Account, [50, 1500]),
    (Kind::NotFound, Place::Script, [50, 2000]),
    (Kind::AnswerCut, Place::Script, [50, 2000]),
    (Kind::AnswerStalled, Place::Script, [50, 2000]),
    (Kind::AnswerLate, Place::Script, [50, 2000]),
    (Kind::NoAnswer, Place::Script, [50, 2000]),
    (Kind::NoHttp, Place::Script, [50, 2000]),
    (Kind::GarbageLine, Place::Server, [50, 2000]),
    (Kind::GarbageList, Place::Script, [50, 2000]),
    (Kind::LongLine, Place::Server, [50, 2000]),
    (Kind::WatchesEnd, Place::Server, [50, 2000]),
    (Kind::WatchesEndAtOnce, Place::Script, [50, 2000]),
    (Kind::CaRotated, Place::Server, [50, 2000]),
    (Kind::Killed, Place::Program, [0, 500]),
    (Kind::Terminated, Place::Program, [0, 500]),
    (Kind::DirectoryDamaged, Place::Program, [0, 500]),
];

impl Kind {
    fn row(self) -> &'static (Kind, Place, [u64; 2]) {
        let found = ALL.iter().find(|(kind, ..)| *kind == self);
        found.expect("every kind has its row")
    }

    pub fn place(self) -> Place {
        self.row().1
    }

    /// For how long, in milliseconds, at least and at most.
    pub fn lasts(self) -> [u64; 2] {
        self.row().2
    }
}
