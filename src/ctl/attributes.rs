//! Attributes as text, one by one, to say which differ.

use std::fmt::{Display, Write as _};

use bgp_proto::types::{Community, NextHop, off_interface};
use bgp_proto::wire::{AttrView, Origin, attr};

use super::item::AttributeChange;

/// Longest value of an attribute without a text form that is shown, in octets.
const SHOWN_MAX: usize = 32;

/// The attributes that differ between two routes; without the first, those of the second.
pub fn attribute_changes(
    before: Option<(AttrView<'_>, Option<NextHop>)>,
    after: Option<(AttrView<'_>, Option<NextHop>)>,
) -> Vec<AttributeChange> {
    let texts = |route: Option<(AttrView<'_>, Option<NextHop>)>| {
        route.map_or(Vec::new(), |(attrs, next_hop)| described(attrs, next_hop))
    };
    let (before, mut after) = (texts(before), texts(after));
    let mut changes = Vec::new();
    for (name, old) in before {
        let at = after.iter().position(|(other, _)| *other == name);
        let new = at.map(|at| after.remove(at).1);
        if new.as_ref() != Some(&old) {
            changes.push(AttributeChange { attribute: name, before: Some(old), after: new });
        }
    }
    let new = after.into_iter();
    changes.extend(new.map(|(name, value)| AttributeChange {
        attribute: name,
        before: None,
        after: Some(value),
    }));
    changes
}

/// Every attribute with its name and value.
fn described(attrs: AttrView<'_>, next_hop: Option<NextHop>) -> Vec<(String, String)> {
    let mut texts = Vec::new();
    let mut add = |name: &str, value: String| texts.push((name.to_owned(), value));
    if let Some(next_hop) = next_hop {
        add("next_hop", off_interface(next_hop.addr()).0.to_string());
    }
    let origin = match attrs.origin() {
        Origin::Igp => "igp",
        Origin::Egp => "egp",
        Origin::Incomplete => "incomplete",
    };
    add("origin", origin.to_owned());
    add("as_path", attrs.as_path().to_string());
    let numbers = [("local_pref", attrs.local_pref()), ("med", attrs.med())];
    for (name, number) in numbers {
        number.into_iter().for_each(|number| add(name, number.to_string()));
    }
    let lists = [
        ("communities", listed(attrs.communities().map(community))),
        ("large_communities", listed(attrs.large_communities())),
        ("extended_communities", listed(attrs.ext_communities())),
        ("originator_id", listed(attrs.originator_id())),
        ("cluster_list", listed(attrs.cluster_list())),
        ("only_to_customer", listed(attrs.only_to_customer())),
    ];
    for (name, list) in lists {
        list.into_iter().for_each(|list| add(name, list));
    }
    let known = [
        attr::ORIGIN,
        attr::AS_PATH,
        attr::MULTI_EXIT_DISC,
        attr::LOCAL_PREF,
        attr::COMMUNITIES,
        attr::LARGE_COMMUNITIES,
        attr::EXTENDED_COMMUNITIES,
        attr::ORIGINATOR_ID,
        attr::CLUSTER_LIST,
        attr::ONLY_TO_CUSTOMER,
    ];
    for other in attrs.iter().filter(|other| !known.contains(&other.code)) {
        let mut value = String::new();
        for octet in other.value.iter().take(SHOWN_MAX) {
            // Writing to a String cannot fail.
            let _ = write!(value, "{octet:02x}");
        }
        if other.value.len() > SHOWN_MAX {
            let _ = write!(value, "… ({} octets)", other.value.len());
        }
        add(&format!("attribute {}", other.code), value);
    }
    texts
}

/// Well-known communities by name.
fn community(community: Community) -> String {
    community.name().map_or_else(|| community.to_string(), str::to_owned)
}

fn listed<T: Display>(values: impl IntoIterator<Item = T>) -> Option<String> {
    let all: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
    (!all.is_empty()).then(|| all.join(" "))
}

#[cfg(test)]
mod tests {
    use bgp_proto::types::Asn;
    use bgp_proto::wire::AttrEdit;

    use super::*;

    #[test]
    fn what_differs_is_named_with_both_values() {
        let plain = AttrEdit::originate(Origin::Igp);
        let mut edit = AttrEdit::from_view(plain.view());
        edit.prepend_as(Asn(65001), 2);
        edit.set_communities(&[Community::NO_EXPORT]);
        edit.set_med(7);
        let hop = |last: u8| Some(NextHop::from(std::net::IpAddr::from([10, 0, 0, last])));
        let changes = attribute_changes(Some((plain.view(), hop(1))), Some((edit.view(), hop(2))));
        let text = |change: &AttributeChange| {
            let value = |value: &Option<String>| value.clone().unwrap_or("-".into());
            format!("{} {} {}", change.attribute, value(&change.before), value(&change.after))
        };
        let texts: Vec<String> = changes.iter().map(text).collect();
        assert_eq!(
            texts,
            [
                "next_hop 10.0.0.1 10.0.0.2",
                "as_path  65001 65001",
                "med - 7",
                "communities - no-export"
            ]
        );
        assert_eq!(attribute_changes(None, Some((plain.view(), hop(1)))).len(), 3);
        assert!(attribute_changes(Some((edit.view(), None)), Some((edit.view(), None))).is_empty());
    }
}
