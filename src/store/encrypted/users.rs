//! [`UserNames`]: under which name a store files a user, or an external id.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::keys::UserHashKey;
use crate::record::user::UserId;

/// The length of a hash in base64url.
const NAME_LEN: usize = (32_usize * 4).div_ceil(3);

/// The names of a user: the one under which new records are filed, and the ones of before.
#[derive(Clone, Default)]
pub(super) struct UserNames {
    /// Without it, users have their own name.
    hash: Option<UserHash>,
    former_hashes: Vec<UserHash>,
    finds_plain: bool,
}

/// A keyed hash of users, and one of external ids.
#[derive(Clone)]
struct UserHash {
    users: Hmac<Sha256>,
    external_ids: Hmac<Sha256>,
}

impl UserHash {
    fn new(key: &UserHashKey) -> Self {
        Self {
            users: key.mac().chain_update(b"cloakroom user 1\0"),
            external_ids: key.mac().chain_update(b"cloakroom external id 1\0"),
        }
    }

    fn name_of(&self, user: &UserId) -> UserId {
        UserId::stored(name(&self.users, user.as_str()))
    }

    fn name_of_external(&self, external_id: &str) -> Arc<str> {
        name(&self.external_ids, external_id)
    }
}

/// The earlier names, the last one, and the earlier names again.
fn in_turn<T: Clone>(plain: Option<T>, former: impl Iterator<Item = T>, last: T) -> Vec<T> {
    let earlier: Vec<T> = plain.into_iter().chain(former).collect();
    earlier
        .iter()
        .cloned()
        .chain([last])
        .chain(earlier.iter().cloned())
        .collect()
}

fn name(hash: &Hmac<Sha256>, text: &str) -> Arc<str> {
    let hash = hash.clone().chain_update(text).finalize();
    let mut name = [0; NAME_LEN];
    let _ = URL_SAFE_NO_PAD.encode_slice(hash.into_bytes(), &mut name);
    str::from_utf8(&name).unwrap_or_default().into()
}

impl UserNames {
    pub(super) fn hash_by(&mut self, key: &UserHashKey) {
        self.hash = Some(UserHash::new(key));
    }

    pub(super) fn also_find_by(&mut self, key: &UserHashKey) {
        self.former_hashes.push(UserHash::new(key));
    }

    pub(super) fn also_find_plain(&mut self, find: bool) {
        self.finds_plain = find;
    }

    pub(super) fn are_hashed(&self) -> bool {
        self.hash.is_some()
    }

    /// The name under which a new record of this user is filed.
    pub(super) fn name_of(&self, user: &UserId) -> UserId {
        match &self.hash {
            Some(hash) => hash.name_of(user),
            None => user.clone(),
        }
    }

    /// All names under which records of this user may be filed, in the order in which to look. A
    /// write moves a record from an earlier one of these to the last one. During a rotation, a node
    /// with the former settings may move it back. So the earlier names come once more at the end.
    pub(super) fn names_of(&self, user: &UserId, has_plaintext: bool) -> Vec<UserId> {
        let finds_plain = self.finds_plain || has_plaintext;
        let plain = (self.hash.is_some() && finds_plain).then(|| user.clone());
        let former = self.former_hashes.iter().map(|hash| hash.name_of(user));
        in_turn(plain, former, self.name_of(user))
    }

    /// The same for an external id.
    pub(super) fn name_of_external(&self, external_id: &Arc<str>) -> Arc<str> {
        match &self.hash {
            Some(hash) => hash.name_of_external(external_id),
            None => external_id.clone(),
        }
    }

    /// The same for an external id.
    pub(super) fn names_of_external(
        &self,
        external_id: &str,
        has_plaintext: bool,
    ) -> Vec<Arc<str>> {
        let finds_plain = self.finds_plain || has_plaintext;
        let own: Arc<str> = external_id.into();
        let plain = (self.hash.is_some() && finds_plain).then(|| own.clone());
        let former = self.former_hashes.iter();
        let former = former.map(|hash| hash.name_of_external(external_id));
        in_turn(plain, former, self.name_of_external(&own))
    }
}
