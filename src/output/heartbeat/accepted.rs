//! The answer of `-accepted`: whether Envoy has taken a whole set. Owns: how that stands in the
//! heartbeat, and what a probe says of it.

use std::fmt;
use std::time::Duration;

/// The time for which it may be unknown what Envoy made of the files before a probe gives in: from
/// then on the pod is judged by its other probes, as it is without the question.
const UNKNOWN_FOR: Duration = Duration::from_secs(60);
/// The longest text that is written: a page holds it beside the state.
const MAX_TEXT_BYTES: usize = 1000;

const WORD: &str = "accepted ";

/// Envoy's verdict, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// Every Envoy has taken a whole set since it started.
    Taken,
    /// The set on disk is refused: by which file and counter, and why.
    Refused(String),
    /// No set was taken yet.
    Nothing,
    /// An Envoy does not answer, for this reason.
    Away(String),
    /// An Envoy answers, and for this reason nothing is known by that.
    Unknown(String),
}

impl Accepted {
    /// Returns the line of the heartbeat. `since` is the second since which it is unknown.
    pub(super) fn line(&self, since: u64) -> Line<'_> {
        Line(self, since)
    }

    pub(super) fn is_unknown(&self) -> bool {
        matches!(self, Accepted::Unknown(_))
    }
}

/// A line of the heartbeat, as it is written.
pub(super) struct Line<'a>(&'a Accepted, u64);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line(accepted, since) = self;
        f.write_str(WORD)?;
        let text = match accepted {
            Accepted::Taken => return f.write_str("taken"),
            Accepted::Nothing => return f.write_str("nothing"),
            Accepted::Refused(text) => {
                f.write_str("refused ")?;
                text
            }
            Accepted::Away(text) => {
                f.write_str("away ")?;
                text
            }
            Accepted::Unknown(text) => {
                write!(f, "unknown {since} ")?;
                text
            }
        };
        let end = text.floor_char_boundary(MAX_TEXT_BYTES);
        // The heartbeat is read line by line.
        for part in text.get(..end).unwrap_or_default().split(char::is_control) {
            f.write_str(part)?;
        }
        Ok(())
    }
}

/// Answers from the heartbeat's second line, if there is one. `obstacle` is what keeps files from
/// being published, if anything does: then Envoy can have taken none. `Ok` with a text is a yes for
/// want of knowledge; the error is the reason why the answer is no.
pub(super) fn answer(
    line: Option<&str>,
    obstacle: Option<&str>,
    now: u64,
) -> Result<Option<String>, String> {
    let Some(line) = line.and_then(|line| line.strip_prefix(WORD)) else {
        let off = "nothing is known of what Envoy made of the files: -on-refusal is off";
        return Ok(Some(off.to_owned()));
    };
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match (word, obstacle) {
        ("taken", _) => Ok(None),
        ("refused", _) => Err(format!("refused by Envoy: {rest}")),
        (_, Some(obstacle)) => Err(format!("not accepted: not ready: {obstacle}")),
        ("nothing", None) => {
            Err("not accepted: Envoy has not taken a whole set since it started".into())
        }
        ("away", None) => Err(format!("not accepted: Envoy does not answer: {rest}")),
        ("unknown", None) => {
            let (since, why) = rest.split_once(' ').unwrap_or((rest, ""));
            let since = since.parse().unwrap_or(now);
            let lasts = Duration::from_secs(now.saturating_sub(since));
            match lasts < UNKNOWN_FOR {
                true => Err(format!("not known to be accepted: {why}")),
                false => Ok(Some(format!(
                    "nothing is known of what Envoy made of the files: {why}"
                ))),
            }
        }
        _ => Err(format!("not accepted: {line}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(accepted: &Accepted, now: u64) -> Result<Option<String>, String> {
        let line = accepted.line(100).to_string();
        assert_eq!(line.lines().count(), 1, "{line}");
        answer(Some(&line), None, now)
    }

    #[test]
    fn yes_once_a_whole_set_is_taken_and_no_with_the_reason_before() {
        assert_eq!(said(&Accepted::Taken, 100), Ok(None));
        let refused = Accepted::Refused("rds.yaml: http.in.rds.r.update_rejected".into());
        let no = "refused by Envoy: rds.yaml: http.in.rds.r.update_rejected";
        assert_eq!(said(&refused, 900), Err(no.into()));
        let nothing = said(&Accepted::Nothing, 900).unwrap_err();
        assert!(nothing.starts_with("not accepted: Envoy has not taken"));
        let away = said(&Accepted::Away("connection refused".into()), 900);
        let no = "not accepted: Envoy does not answer: connection refused";
        assert_eq!(away, Err(no.into()));
    }

    #[test]
    fn a_yes_without_knowledge_says_so() {
        let unknown = Accepted::Unknown("answered 403".into());
        let no = "not known to be accepted: answered 403";
        for second in [90, 100, 159] {
            assert_eq!(said(&unknown, second), Err(no.into()), "{second}");
        }
        let yes = "nothing is known of what Envoy made of the files: answered 403";
        assert_eq!(said(&unknown, 160), Ok(Some(yes.into())));
        let off = answer(None, Some("it is absent"), 0).unwrap().unwrap();
        assert!(off.ends_with("-on-refusal is off"), "{off}");
    }

    #[test]
    fn before_anything_is_published_the_reason_is_what_keeps_it() {
        let ask = |accepted: &Accepted| {
            let line = accepted.line(0).to_string();
            answer(Some(&line), Some("a does not exist"), 900)
        };
        let no = "not accepted: not ready: a does not exist";
        for accepted in [
            Accepted::Nothing,
            Accepted::Away("connection refused".into()),
            Accepted::Unknown("answered 403".into()),
        ] {
            assert_eq!(ask(&accepted), Err(no.into()), "{accepted:?}");
        }
        // Files of an earlier run may stand.
        assert_eq!(ask(&Accepted::Taken), Ok(None));
        let refused = ask(&Accepted::Refused("rds.yaml".into())).unwrap_err();
        assert_eq!(refused, "refused by Envoy: rds.yaml");
    }

    #[test]
    fn a_text_of_any_length_is_one_line_that_fits() {
        let text = "€\n".repeat(10_000);
        for accepted in [
            Accepted::Refused(text.clone()),
            Accepted::Away(text.clone()),
            Accepted::Unknown(text),
        ] {
            let line = accepted.line(u64::MAX).to_string();
            assert!(line.len() <= MAX_TEXT_BYTES + 60, "{}", line.len());
            assert!(!line.contains('\n'));
        }
    }
}
