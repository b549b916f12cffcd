//! Says for the probe `-accepted` what Envoy has made of its files.

use super::Verdicts;
use crate::envoy::acceptance::Status;
use crate::output::heartbeat::Accepted;

impl Verdicts {
    /// Returns what is known of all Envoys.
    pub fn accepted(&self) -> Accepted {
        let status = self.acceptance.as_ref().map(|it| it.status());
        match status {
            None | Some(Status::NothingTaken) => Accepted::Nothing,
            Some(Status::Taken) => Accepted::Taken,
            Some(Status::Refused(file, counter)) => {
                let reason = self.told.reason.iter();
                let reason = reason.filter(|(files, _)| files.contains(&file));
                let reason: String = reason.map(|(_, why)| format!(": {why}")).collect();
                Accepted::Refused(format!("{file}: {counter}{reason}"))
            }
            Some(Status::Away(why)) => Accepted::Away(why),
            Some(Status::Unknown(why, _)) => Accepted::Unknown(why),
        }
    }
}
