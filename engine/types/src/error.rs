//! What users read when something is wrong: the thing, the place, the way out.

use std::fmt;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whose mistake it is; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The user's input is wrong: exit 1.
    User,
    /// Nobody's: what a statement read changed before it could write. The same again may succeed: exit 1.
    Conflict,
    /// The user's: it is more than is done at once. The same in parts may succeed: exit 1.
    TooMuch,
    /// Nobody's: there is no room for it now. The same later may succeed: exit 1.
    NoRoom,
    /// The engine or its surroundings failed: exit 2.
    Engine,
}

/// Which of the user's mistakes it is, for programs that tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    Syntax,
    Unsupported,
    NoRelation,
    /// One that is there, but not for this.
    WrongRelation,
    DuplicateRelation,
    /// Others are made of it.
    Dependents,
    NoColumn,
    /// Nor an operator, of this name and for these types.
    NoFunction,
    /// Nor a value for it.
    NoParameter,
    AmbiguousColumn,
    DuplicateColumn,
    DuplicateAlias,
    /// What is neither in GROUP BY nor aggregated, or aggregated where it cannot be.
    Grouping,
    /// By what is not to be ordered by.
    BadOrder,
    WrongType,
    /// A value that cannot be computed with, in no way of its own.
    BadValue,
    /// A text that is no number, truth value or list.
    BadText,
    /// A text that is no time.
    BadTime,
    /// A time that there is none of.
    NoSuchTime,
    BadPattern,
    BadLimit,
    BadOffset,
    OutOfRange,
    DivisionByZero,
    /// Where one is wanted.
    SeveralRows,
    /// NULL where there must be a value.
    Null,
    DuplicateKey,
    /// A view, by itself or through others.
    ReadsItself,
}

impl Mistake {
    fn sqlstate(self) -> &'static str {
        match self {
            Self::Syntax => "42601",
            Self::Unsupported => "0A000",
            Self::NoRelation => "42P01",
            Self::WrongRelation => "42809",
            Self::DuplicateRelation => "42P07",
            Self::Dependents => "2BP01",
            Self::NoColumn => "42703",
            Self::NoFunction => "42883",
            Self::NoParameter => "42P02",
            Self::AmbiguousColumn => "42702",
            Self::DuplicateColumn => "42701",
            Self::DuplicateAlias => "42712",
            Self::Grouping => "42803",
            Self::BadOrder => "42P10",
            Self::WrongType => "42804",
            Self::BadValue => "22000",
            Self::BadText => "22P02",
            Self::BadTime => "22007",
            Self::NoSuchTime => "22008",
            Self::BadPattern => "2201B",
            Self::BadLimit => "2201W",
            Self::BadOffset => "2201X",
            Self::OutOfRange => "22003",
            Self::DivisionByZero => "22012",
            Self::SeveralRows => "21000",
            Self::Null => "23502",
            Self::DuplicateKey => "23505",
            Self::ReadsItself => "42P17",
        }
    }
}

/// Where in the user's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub file: String,
    /// 1-based; 0 where only the file is known.
    pub line: u64,
    pub column: u64,
}

/// An error with its hint, displayed as
///
/// ```text
/// pack/10_rules.sql:3:8: column "usr" does not exist in source "login"
/// hint: did you mean "user"?
/// ```
#[derive(Debug, Clone)]
pub struct Error {
    pub fault: Fault,
    /// Lower case, no full stop.
    pub message: String,
    pub place: Option<Place>,
    pub hint: Option<String>,
    /// Where one is known.
    pub mistake: Option<Mistake>,
}

impl Error {
    pub fn user(message: impl Into<String>) -> Self {
        Self { fault: Fault::User, message: message.into(), place: None, hint: None, mistake: None }
    }

    pub fn conflict(message: impl Into<String>) -> Self {
        Self { fault: Fault::Conflict, hint: Some("run it again".into()), ..Self::user(message) }
    }

    pub fn too_much(message: impl Into<String>) -> Self {
        Self { fault: Fault::TooMuch, ..Self::user(message) }
    }

    pub fn no_room(message: impl Into<String>) -> Self {
        Self { fault: Fault::NoRoom, ..Self::user(message) }
    }

    pub fn engine(message: impl Into<String>) -> Self {
        Self { fault: Fault::Engine, ..Self::user(message) }
    }

    /// A construct that is refused when planned, by name, with the way out.
    pub fn unsupported(construct: impl fmt::Display, way_out: impl Into<String>) -> Self {
        Self::user(format!("{construct} is not supported")).hint(way_out).mistake(Mistake::Unsupported)
    }

    pub fn mistake(mut self, mistake: Mistake) -> Self {
        self.mistake = Some(mistake);
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// As Postgres's clients know it.
    pub fn sqlstate(&self) -> &'static str {
        match (self.mistake, self.fault) {
            (Some(mistake), _) => mistake.sqlstate(),
            (None, Fault::User) => "42000",
            (None, Fault::Conflict) => "40001",
            (None, Fault::TooMuch) => "54000",
            (None, Fault::NoRoom) => "53100",
            (None, Fault::Engine) => "XX000",
        }
    }

    /// Names the place, unless a closer one is named already.
    pub fn at(mut self, file: &str, line: u64, column: u64) -> Self {
        self.place.get_or_insert(Place { file: file.into(), line, column });
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            match place.line {
                0 => write!(f, "{}: ", place.file)?,
                line => write!(f, "{}:{line}:{}: ", place.file, place.column)?,
            }
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// "did you mean": the candidate closest to `wanted`, if one is close; never `wanted` itself.
pub fn did_you_mean<'a>(wanted: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = wanted.to_lowercase();
    candidates
        .into_iter()
        .filter(|candidate| *candidate != wanted)
        .map(|candidate| (edit_distance(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().max(lower.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, one row at a time.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(x != *y)).min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_names_are_offered_and_far_ones_are_not() {
        assert_eq!(did_you_mean("usr", ["user", "ip"]), Some("user"));
        assert_eq!(did_you_mean("formt", ["format", "path"]), Some("format"));
        assert_eq!(did_you_mean("zzz", ["user", "ip"]), None);
        assert_eq!(did_you_mean("k", ["k", "K"]), Some("K"));
        assert_eq!(did_you_mean("user", ["user"]), None);
    }

    #[test]
    fn shows_place_then_message_then_hint() {
        let error = Error::user("column \"usr\" does not exist").hint("did you mean \"user\"?").at("a.sql", 3, 8);
        assert_eq!(error.to_string(), "a.sql:3:8: column \"usr\" does not exist\nhint: did you mean \"user\"?");
    }
}
