//! Users and groups of an image, from its `/etc/passwd` and `/etc/group`.

/// The user that a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) user: u32,
    pub(super) group: u32,
    pub(super) additional: Vec<u32>,
    pub(super) home: String,
}

/// The user of a config cannot be determined.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AccountError {
    #[error("/etc/passwd of the image has no user `{0}`")]
    NoUser(String),
    #[error("/etc/group of the image has no group `{0}`")]
    NoGroup(String),
    #[error("the entry of user `{0}` in /etc/passwd has no valid IDs")]
    InvalidIds(String),
}

/// Finds the user of a config: `USER[:GROUP]`, each by name or number. The rules are those of runc: a number needs no entry, a name
/// does, and the groups of a user count unless a group is given.
pub(super) fn find(wanted: &str, passwd: &[u8], group: &[u8]) -> Result<Account, AccountError> {
    let (user, wanted_group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (wanted, None),
    };
    let mut account = Account { user: 0, group: 0, additional: Vec::new(), home: "/".to_owned() };
    let user = if user.is_empty() { "0" } else { user };
    let number = user.parse::<u32>().ok();
    let entry = lines(passwd).find(|fields| {
        fields.first() == Some(&user) || number.is_some() && fields.get(2).and_then(|id| id.parse().ok()) == number
    });
    let mut name = None;
    match (entry, number) {
        (Some(fields), _) => {
            let id = |at: usize| fields.get(at).and_then(|id| id.parse::<u32>().ok());
            let invalid = || AccountError::InvalidIds(user.to_owned());
            (account.user, account.group) = (id(2).ok_or_else(invalid)?, id(3).ok_or_else(invalid)?);
            if let Some(home) = fields.get(5).filter(|home| !home.is_empty()) {
                account.home = (*home).to_owned();
            }
            name = fields.first().copied();
        }
        (None, Some(number)) => account.user = number,
        (None, None) => return Err(AccountError::NoUser(user.to_owned())),
    }
    match wanted_group {
        Some(wanted) => {
            let found = lines(group).find(|fields| fields.first() == Some(&wanted));
            let id = found.and_then(|fields| fields.get(2)?.parse().ok()).or_else(|| wanted.parse().ok());
            account.group = id.ok_or_else(|| AccountError::NoGroup(wanted.to_owned()))?;
        }
        None => {
            let is_member = |fields: &Vec<&str>| {
                name.is_some_and(|name| fields.get(3).is_some_and(|members| members.split(',').any(|one| one == name)))
            };
            let ids = lines(group).filter(is_member).filter_map(|fields| fields.get(2)?.parse().ok());
            account.additional = ids.filter(|id| *id != account.group).collect();
        }
    }
    Ok(account)
}

fn lines(text: &[u8]) -> impl Iterator<Item = Vec<&str>> {
    let lines = text.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    lines.map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(|line| line.split(':').collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n# no\napp:x:1000:1001::/home:/bin/sh\nbroken:x:y\n";
    const GROUP: &[u8] = b"root:x:0:\nstaff:x:50:app,other\nmine:x:1001:app\nweb:x:80:other\n";

    #[test]
    fn users_are_found_by_the_rules_of_runc() {
        for (wanted, user, group, additional, home) in [
            ("", 0, 0, &[][..], "/root"),
            ("root", 0, 0, &[], "/root"),
            ("app", 1000, 1001, &[50], "/home"),
            ("1000", 1000, 1001, &[50], "/home"),
            ("app:web", 1000, 80, &[], "/home"),
            ("app:7", 1000, 7, &[], "/home"),
            ("5:6", 5, 6, &[], "/"),
            ("5", 5, 0, &[], "/"),
        ] {
            let expected = Account { user, group, additional: additional.to_vec(), home: home.to_owned() };
            assert_eq!(find(wanted, PASSWD, GROUP).unwrap(), expected, "{wanted}");
        }
        for wanted in ["nobody", "app:nobody", "broken"] {
            assert!(find(wanted, PASSWD, GROUP).is_err(), "{wanted}");
        }
        assert_eq!(find("", b"", b"").unwrap().home, "/");
    }
}
