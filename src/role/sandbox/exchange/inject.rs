//! Raw frames on demand: garbage, unknown types, frames of many megabytes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::connection::slot;
use super::market::ConnectionId;
use super::outbox::Opcode;
use super::venue::Venue;
use crate::model::Channel;

/// The largest padding, in bytes: enough to pass every limit of a client, bounded for our own sake.
pub const PAD_BYTES_MAX: usize = 256 << 20;

/// A frame to send as it is on every live subscription of a channel.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Injection {
    /// The channel's name on the wire.
    pub channel: String,
    /// The text. `$SID` becomes the subscription, `$SEQ` its next number (which is used up), `$PAD`
    /// the padding.
    #[serde(default)]
    pub raw: String,
    /// Instead of `raw`: any bytes, so that invalid UTF-8 can be sent. Nothing is replaced in them.
    #[serde(default)]
    pub base64: Option<String>,
    /// Send it as a binary frame.
    #[serde(default)]
    pub binary: bool,
    /// Length of the padding in bytes, up to [`PAD_BYTES_MAX`]; it is appended when the text has
    /// no `$PAD`.
    #[serde(default)]
    pub repeat_bytes: usize,
    /// Only to this key's connections.
    #[serde(default)]
    pub key: Option<usize>,
}

impl Injection {
    /// A text frame for a channel's subscriptions.
    pub fn text(channel: Channel, raw: String) -> Self {
        Self {
            channel: channel.name().to_owned(),
            raw,
            base64: None,
            binary: false,
            repeat_bytes: 0,
            key: None,
        }
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// A sentence for whoever asked.
    pub fn check(&self) -> Result<Channel, String> {
        if self.repeat_bytes > PAD_BYTES_MAX {
            return Err(format!("repeat_bytes is more than {PAD_BYTES_MAX}"));
        }
        if let Some(bytes) = &self.base64 {
            STANDARD.decode(bytes).map_err(|error| format!("base64: {error}"))?;
        }
        Channel::from_name(&self.channel).ok_or_else(|| format!("no channel {:?}", self.channel))
    }

    /// The bytes for one subscription.
    fn payload(&self, sid: i64, seq: Option<i64>) -> Vec<u8> {
        if let Some(bytes) = &self.base64 {
            return STANDARD.decode(bytes).unwrap_or_default();
        }
        let mut text = self.raw.replace("$SID", &sid.to_string());
        if let Some(seq) = seq {
            text = text.replace("$SEQ", &seq.to_string());
        }
        if self.repeat_bytes > 0 {
            let pad = "x".repeat(self.repeat_bytes);
            text = if text.contains("$PAD") { text.replace("$PAD", &pad) } else { text + &pad };
        }
        text.into_bytes()
    }
}

impl Venue {
    /// Sends the frame on every live subscription of its channel and returns on how many.
    pub fn inject(&mut self, injection: &Injection) -> usize {
        let Ok(channel) = injection.check() else { return 0 };
        let ids: Vec<ConnectionId> = self
            .connections()
            .filter(|(_, c)| injection.key.is_none_or(|key| key == c.key))
            .filter(|(_, c)| c.subscriptions.get(slot(channel)).is_some_and(Option::is_some))
            .map(|(id, _)| id)
            .collect();
        for id in &ids {
            self.inject_into(*id, channel, injection);
        }
        ids.len()
    }

    /// Sends the frame on one connection's subscription of a channel.
    pub fn inject_into(&mut self, id: ConnectionId, channel: Channel, injection: &Injection) {
        let opcode = if injection.binary { Opcode::Binary } else { Opcode::Text };
        let numbered = injection.base64.is_none() && injection.raw.contains("$SEQ");
        let Some(connection) = self.connection(id) else { return };
        let Some(subscription) = connection.subscription(channel) else { return };
        let seq = numbered.then(|| subscription.next());
        let payload = injection.payload(subscription.sid, seq);
        self.send(id, opcode, &[&payload]);
    }
}
