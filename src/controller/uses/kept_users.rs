//! Users of uses of which too little is known to declare them: they stay as the system Secret has them.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use crate::model::UseKind;
use crate::model::desired::DesiredUser;
use crate::redis::users::use_user_name;

/// Whether it is a user of this use, of whatever rotation.
pub(super) fn is_of(user: &str, kind: UseKind, namespace: &str, name: &str) -> bool {
    let plain = use_user_name(kind, namespace, name, 0);
    user.strip_prefix(&plain).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

pub(super) fn bytes_of<'a>(secret: &'a Secret, field: &str) -> Option<&'a [u8]> {
    let ByteString(bytes) = secret.data.as_ref()?.get(field)?;
    Some(bytes)
}

/// The users in a file of the system Secret (`redis::users::acl_file`) that `which` names.
pub(super) fn kept(
    system: Option<&Secret>,
    field: &str,
    which: impl Fn(&str) -> bool,
) -> BTreeMap<String, DesiredUser> {
    let text = || std::str::from_utf8(bytes_of(system?, field)?).ok();
    let line = |line: &str| {
        let (name, rules) = line.strip_prefix("user ")?.split_once(' ')?;
        let rules = rules.split_whitespace().map(str::to_owned).collect();
        which(name).then(|| (name.to_owned(), DesiredUser { rules }))
    };
    text().into_iter().flat_map(str::lines).filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::function_library::Functions;
    use crate::redis::rights::Grant;
    use crate::redis::users::{acl_file, use_on_data};

    #[test]
    fn a_user_is_kept_as_the_file_has_it_and_no_other_is() {
        let user = |store: &str| {
            use_on_data(Grant::plain(UseKind::SessionStore, &format!("{store}:"), &Functions::new()), &"a".repeat(64))
        };
        let names = ["ss.shop.web", "ss.shop.web.2", "ss.shop.web2", "ss.shop.api", "app"];
        let users: BTreeMap<String, DesiredUser> = names.iter().map(|name| ((*name).to_owned(), user(name))).collect();
        let file = ByteString(acl_file(&users).into_bytes());
        let secret = Secret { data: Some([("data-users.acl".to_owned(), file)].into()), ..Secret::default() };
        let found = kept(Some(&secret), "data-users.acl", |name| is_of(name, UseKind::SessionStore, "shop", "web"));
        let expected = ["ss.shop.web", "ss.shop.web.2"].map(|name| (name.to_owned(), user(name)));
        assert_eq!(found, BTreeMap::from(expected));
        assert!(kept(None, "data-users.acl", |_| true).is_empty());
    }
}
