//! Two corrections of a set by the schema.

use super::element::Element;
use super::node::{Kind, Node};
use super::set::Set;

impl Set {
    /// With every declared field a member that has something below it: whoever owns a part of a struct holds the struct.
    pub(super) fn with_named_fields(&self, node: Option<Node>) -> Set {
        let mut members = self.members.clone();
        let map = node.and_then(|node| match node.kind(None) {
            Kind::Map(map) => Some(map),
            _ => None,
        });
        let mut children = Vec::with_capacity(self.children.len());
        for (element, child) in &self.children {
            if let Element::Field(name) = element
                && map.is_some_and(|map| map.declares(name))
                && let Err(at) = members.binary_search(element)
            {
                members.insert(at, element.clone());
            }
            children.push((element.clone(), child.with_named_fields(node.and_then(|node| node.step(element)))));
        }
        Set { members, children }
    }

    /// With atoms owned as a whole, whose parts were owned when they were none. `None`: nothing is to be corrected.
    pub(super) fn with_atoms(&self, node: Node) -> Option<Set> {
        let mut out: Option<Set> = None;
        for (element, child) in &self.children {
            let Some(node) = node.step(element) else { continue };
            let atomic = match node.kind(None) {
                Kind::List(list) => list.atomic,
                Kind::Map(map) => map.atomic,
                Kind::Scalar => false,
            };
            if atomic && !node.is_open() {
                let out = out.get_or_insert_with(|| self.clone());
                out.children.retain(|(own, _)| own != element);
                out.insert_member(element.clone());
            } else if let Some(child) = child.with_atoms(node) {
                *out.get_or_insert_with(|| self.clone()).descend(element) = child;
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::table;

    #[test]
    fn sets_follow_the_schema() {
        let node = Node::of(table().type_of("apps", "v1", "Deployment").unwrap());
        let set = Set::parse(
            r#"{"f:metadata":{"f:labels":{"f:a":{}}},"f:spec":{"f:selector":{"f:matchLabels":{"f:a":{}}}}}"#,
        )
        .unwrap();
        assert_eq!(
            set.with_named_fields(Some(node)).to_json(),
            concat!(
                r#"{"f:metadata":{".":{},"f:labels":{".":{},"f:a":{}}},"#,
                r#""f:spec":{".":{},"f:selector":{".":{},"f:matchLabels":{".":{},"f:a":{}}}}}"#
            )
        );
        let atoms = set.with_atoms(node).unwrap();
        assert_eq!(atoms.to_json(), r#"{"f:metadata":{"f:labels":{"f:a":{}}},"f:spec":{"f:selector":{}}}"#);
        assert_eq!(atoms.with_atoms(node), None);
    }
}
