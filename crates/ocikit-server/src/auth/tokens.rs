use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use ocikit_spec::Digest;

use crate::auth::scope::Scope;
use crate::random;

/// How many tokens are kept before those that have ended are looked for.
const MANY: usize = 1024;

/// What a token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// What it allows.
    pub(crate) granted: Vec<Scope>,
    /// What was asked for when it was made, which may have been more.
    pub(crate) asked: Vec<Scope>,
    pub(crate) expires: SystemTime,
}

/// The tokens that were given out, by the digest of their text: who reads the memory of the server cannot use them.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    access: Mutex<HashMap<Digest, Arc<Token>>>,
    /// Identity tokens and whose they are; they do not end.
    identity: Mutex<HashMap<Digest, String>>,
}

impl Tokens {
    /// A new text that stands for this token.
    pub(crate) fn issue(&self, token: Token, now: SystemTime) -> io::Result<String> {
        let text = random::secret()?;
        let mut access = self.access.lock().unwrap_or_else(PoisonError::into_inner);
        if access.len() >= MANY {
            access.retain(|_, token| token.expires > now);
        }
        access.insert(Digest::sha256_of(text.as_bytes()), Arc::new(token));
        Ok(text)
    }

    /// What a text stands for, until it ends.
    pub(crate) fn find(&self, text: &str, now: SystemTime) -> Option<Arc<Token>> {
        let access = self.access.lock().unwrap_or_else(PoisonError::into_inner);
        access.get(&Digest::sha256_of(text.as_bytes())).filter(|token| token.expires > now).cloned()
    }

    /// Ends every token but identity tokens.
    pub(crate) fn expire_all(&self) {
        self.access.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// A new identity token.
    pub(crate) fn issue_identity(&self, user: &str) -> io::Result<String> {
        let text = random::secret()?;
        let mut identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        identity.insert(Digest::sha256_of(text.as_bytes()), user.to_owned());
        Ok(text)
    }

    /// Whose identity token this is.
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
    fn a_token_ends() {
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
    fn ended_tokens_are_forgotten() {
        let tokens = Tokens::default();
        for second in 0..3 * MANY as u64 {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
            let expires = now + Duration::from_secs(5);
            tokens.issue(Token { granted: Vec::new(), asked: Vec::new(), expires }, now).unwrap();
        }
        assert!(tokens.access.lock().unwrap().len() <= MANY);
    }
}
