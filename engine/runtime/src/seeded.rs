//! Bugs that can be put in on purpose, each where it would really be made, so that the simulation
//! shows what it is worth: it has to find every one of them.
//!
//! Feature   without `seeded-bugs` there is no way to put one in, and asking for one costs nothing

/// Each says what breaks, and which check of the simulation sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A commit is answered once it is written; only the next one syncs it. A power cut takes the last
    /// tick back: acknowledged rows and answered statements are gone (I1, or a read that lacks them).
    AnswerBeforeSync,
    /// A start leaves what a crash tore where it is, and writes behind it. The log is damaged in its
    /// midst from then on: the engine does not start.
    TornTailKept,
    /// What a snapshot makes needless goes before the snapshot's name is synced. After a power cut
    /// there may be neither: frames are missing, and the engine does not start.
    TrimBeforeName,
    /// A tick is visible before its workers are through. A read lacks rows of its own tick (I4), or a
    /// sink never hears of them.
    VisibleBeforeDone,
    /// A start reads the log at the wall clock's ticks, not at the logged ones. Where the clock was
    /// set, ticks go back (I12), sinks get theirs again (I6), and findings new ids (I7).
    WallClockOnReplay,
    /// A start forgets which requests of clients it has. The door hears of an acknowledged one that
    /// is not known any more (I1), and its rows come twice.
    IdsForgotten,
    /// A sink's progress is noted before it has the tick. A crash between these leaves it out for
    /// ever: a sink does not hold what its view holds.
    ProgressBeforeSend,
    /// A start keeps the epoch of the one before it, so that nobody can tell their writes apart (I6).
    EpochKept,
    /// A detection's new definition tells followers what it finds, and not what the old one no longer
    /// does. Sinks keep rows that are gone, and actions what is to be undone.
    SkippedRetraction,
    /// A request goes out while its intent is on its way to the log. After a crash between these the
    /// striker is asked again for what it may have done.
    SendBeforeIntent,
    /// Each attempt has a key of its own. The clerk cannot tell that it has done a request whose
    /// answer was lost, and does it again (I7).
    KeyOfAttempt,
    /// A withdrawal counts in its action's limit. What was done stays done: the action holds what
    /// nobody finds any more.
    UndoLimited,
}

#[cfg(feature = "seeded-bugs")]
impl Bug {
    pub const ALL: [Self; 12] = [
        Self::AnswerBeforeSync,
        Self::TornTailKept,
        Self::TrimBeforeName,
        Self::VisibleBeforeDone,
        Self::WallClockOnReplay,
        Self::IdsForgotten,
        Self::ProgressBeforeSend,
        Self::EpochKept,
        Self::SkippedRetraction,
        Self::SendBeforeIntent,
        Self::KeyOfAttempt,
        Self::UndoLimited,
    ];
}

/// The bug an engine has been given, if any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seeded {
    #[cfg(feature = "seeded-bugs")]
    bug: Option<Bug>,
}

impl Seeded {
    #[cfg(feature = "seeded-bugs")]
    pub const fn with(bug: Bug) -> Self {
        Self { bug: Some(bug) }
    }

    #[cfg(feature = "seeded-bugs")]
    pub(crate) fn has(self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    #[cfg(not(feature = "seeded-bugs"))]
    pub(crate) const fn has(self, _: Bug) -> bool {
        false
    }
}
