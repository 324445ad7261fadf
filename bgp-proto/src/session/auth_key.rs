//! The secret with which segments are signed.

/// A key of TCP MD5 (RFC 2385) or TCP-AO (RFC 5925), 1-80 octets. `Debug` never shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthKey(Vec<u8>);

impl AuthKey {
    /// Longest key that the kernel accepts, in octets.
    pub const MAX_LEN: usize = 80;

    /// A key; `None` if it is empty or longer than [`AuthKey::MAX_LEN`].
    pub fn new(key: impl Into<Vec<u8>>) -> Option<Self> {
        let key = key.into();
        (!key.is_empty() && key.len() <= Self::MAX_LEN).then_some(AuthKey(key))
    }

    /// The octets, for the socket option only.
    pub fn octets(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for AuthKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuthKey(…)")
    }
}
