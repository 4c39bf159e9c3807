use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use ocikit_spec::Digest;

use crate::auth::scope::Scope;
use crate::random;

/// Number of tokens from which expired ones are removed before another is added.
const MAX_TOKENS_BEFORE_CLEANUP: usize = 1024;

/// The scopes of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// The granted scopes.
    pub(crate) granted: Vec<Scope>,
    /// The requested scopes, which may be more.
    pub(crate) asked: Vec<Scope>,
    pub(crate) expires: SystemTime,
}

/// The issued tokens by the digest of their text, so that a copy of the server's memory does not reveal usable tokens.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    access: Mutex<HashMap<Digest, Arc<Token>>>,
    /// Identity tokens and their users; they do not expire.
    identity: Mutex<HashMap<Digest, String>>,
}

impl Tokens {
    /// Issues a token and returns its text.
    pub(crate) fn issue(&self, token: Token, now: SystemTime) -> io::Result<String> {
        let text = random::secret()?;
        let mut access = self.access.lock().unwrap_or_else(PoisonError::into_inner);
        if access.len() >= MAX_TOKENS_BEFORE_CLEANUP {
            access.retain(|_, token| token.expires > now);
        }
        access.insert(Digest::sha256_of(text.as_bytes()), Arc::new(token));
        Ok(text)
    }

    /// Returns the token with a text, unless it has expired.
    pub(crate) fn find(&self, text: &str, now: SystemTime) -> Option<Arc<Token>> {
        let access = self.access.lock().unwrap_or_else(PoisonError::into_inner);
        access.get(&Digest::sha256_of(text.as_bytes())).filter(|token| token.expires > now).cloned()
    }

    /// Expires all tokens except identity tokens.
    pub(crate) fn expire_all(&self) {
        self.access.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Issues an identity token and returns its text.
    pub(crate) fn issue_identity(&self, user: &str) -> io::Result<String> {
        let text = random::secret()?;
        let mut identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        identity.insert(Digest::sha256_of(text.as_bytes()), user.to_owned());
        Ok(text)
    }

    /// Returns the user of an identity token.
    pub(crate) fn identity(&self, text: &str) -> Option<String> {
        let identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        identity.get(&Digest::sha256_of(text.as_bytes())).cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn token_expires() {
        let tokens = Tokens::default();
        let now = SystemTime::UNIX_EPOCH;
        let token = Token { granted: Vec::new(), asked: Vec::new(), expires: now + Duration::from_secs(10) };
        let text = tokens.issue(token.clone(), now).unwrap();
        assert_eq!(tokens.find(&text, now).as_deref(), Some(&token));
        assert_eq!(tokens.find(&text, now + Duration::from_secs(10)), None);
        assert_eq!(tokens.find("other", now), None);
        tokens.expire_all();
        assert_eq!(tokens.find(&text, now), None);
    }

    #[test]
    fn expired_tokens_are_removed() {
        let tokens = Tokens::default();
        for second in 0..3 * MAX_TOKENS_BEFORE_CLEANUP as u64 {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
            let expires = now + Duration::from_secs(5);
            tokens.issue(Token { granted: Vec::new(), asked: Vec::new(), expires }, now).unwrap();
        }
        assert!(tokens.access.lock().unwrap().len() <= MAX_TOKENS_BEFORE_CLEANUP);
    }
}
