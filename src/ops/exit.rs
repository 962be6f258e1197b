//! Exit codes, and the errors that carry one.
//!
//! A role returns an `anyhow::Error`; whoever knows that it means more than "failed" puts one of
//! these types into its chain, and `main` finds it there whatever context was added on the way.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

/// What the process tells its supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Stopped as asked, or the command found what it should.
    Stopped = 0,
    /// Failed in a way that a restart may cure.
    Failed = 1,
    /// A comparison ran to its end and found a difference.
    Discrepancy = 2,
    /// Bad usage or configuration: a restart cannot cure it.
    Usage = 64,
    /// Another process holds what this one needs.
    Held = 75,
}

impl Exit {
    /// The code for an error that ended a role: that of the first carrier in its chain, else
    /// `Failed`.
    pub fn of(error: &anyhow::Error) -> Self {
        // `anyhow` finds a carrier given as context only by its own downcast, and one wrapped by
        // another error type only by the chain of sources.
        if error.downcast_ref::<UsageError>().is_some() {
            return Self::Usage;
        }
        if error.downcast_ref::<HeldError>().is_some() {
            return Self::Held;
        }
        if error.downcast_ref::<DiscrepancyError>().is_some() {
            return Self::Discrepancy;
        }
        error.chain().find_map(carried).unwrap_or(Self::Failed)
    }

    pub fn code(self) -> u8 {
        match self {
            Self::Stopped => 0,
            Self::Failed => 1,
            Self::Discrepancy => 2,
            Self::Usage => 64,
            Self::Held => 75,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

fn carried(error: &(dyn Error + 'static)) -> Option<Exit> {
    if error.is::<UsageError>() {
        Some(Exit::Usage)
    } else if error.is::<HeldError>() {
        Some(Exit::Held)
    } else if error.is::<DiscrepancyError>() {
        Some(Exit::Discrepancy)
    } else {
        None
    }
}

macro_rules! carrier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name(pub String);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Error for $name {}
    };
}

carrier!(
    /// Bad usage or configuration (64); the text tells the person what to change.
    UsageError
);
carrier!(
    /// Another process holds what this one needs (75); the text names the holder.
    HeldError
);
carrier!(
    /// A comparison that found a difference (2).
    DiscrepancyError
);

/// Several checks that failed as one error, whose exit code is that of the first with one of its own.
///
/// # Errors
/// When there is a problem at all.
pub fn all(mut problems: Vec<anyhow::Error>) -> anyhow::Result<()> {
    if problems.len() < 2 {
        return problems.pop().map_or(Ok(()), Err);
    }
    let mut text = format!("{} problems:", problems.len());
    for problem in &problems {
        text.push_str("\n  ");
        text.push_str(&chain(problem));
    }
    let exits = problems.iter().map(Exit::of);
    Err(match exits.into_iter().find(|exit| *exit != Exit::Failed) {
        Some(Exit::Usage) => UsageError(text).into(),
        Some(Exit::Held) => HeldError(text).into(),
        _ => anyhow::Error::msg(text),
    })
}

/// The whole chain of an error on one line, without causes that only repeat what stands before them.
pub fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.ends_with(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};

    use super::*;

    #[derive(Debug)]
    struct Wrapper(HeldError);
    impl fmt::Display for Wrapper {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("acquire writer lock")
        }
    }
    impl Error for Wrapper {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn several_problems_are_told_together() {
        assert!(all(Vec::new()).is_ok());
        let one = all(vec![anyhow!("a").context("b")]).unwrap_err();
        assert_eq!(chain(&one), "b: a");
        let two = vec![anyhow!("down"), UsageError("wrong".to_owned()).into(), anyhow!("away")];
        let two = all(two).unwrap_err();
        assert_eq!(chain(&two), "3 problems:\n  down\n  wrong\n  away");
        assert_eq!(Exit::of(&two), Exit::Usage);
    }

    #[test]
    fn a_carrier_is_found_wherever_it_stands() {
        let plain = anyhow!("no route");
        assert_eq!(Exit::of(&plain), Exit::Failed);
        let root = anyhow::Error::new(UsageError("bad".into())).context("load").context("start");
        assert_eq!(Exit::of(&root), Exit::Usage);
        let as_context = anyhow!("x").context(DiscrepancyError("1 lost".into())).context("verdict");
        assert_eq!(Exit::of(&as_context), Exit::Discrepancy);
        let wrapped =
            Err::<(), _>(Wrapper(HeldError("held by g1".into()))).context("start").unwrap_err();
        assert_eq!(Exit::of(&wrapped), Exit::Held);
        assert_eq!(chain(&wrapped), "start: acquire writer lock: held by g1");
    }

    #[test]
    fn a_repeated_cause_is_printed_once() {
        let error = anyhow!("connection refused").context("connect: connection refused");
        assert_eq!(chain(&error), "connect: connection refused");
    }
}
